"""Schedules: one pure function a file, ``(num_ranks, num_microbatches, stages_per_rank) -> Schedule``.

The folder is the list. As attributes of this package the files are their functions, by the name on the command line
they are items:

    pz.schedules.zbv(4, 8)            the function of schedules/zbv.py
    pz.schedules["1f1b"](4, 8)        what schedule=1f1b calls
    pz.schedules.names()              every name of the second kind
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from types import ModuleType
from typing import Any

from pipezoo.installed import conf_dir
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import unknown, unknown_word

Generator = Callable[..., Schedule]


class ScheduleZoo(ModuleType):
    """This package. An import that sets a file's module as an attribute sets its function instead."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}":
            value = vars(value).get(name, value)
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Generator:
        files = [entry.name for entry in pkgutil.iter_modules(self.__path__)]
        if name.startswith("_") or name not in files:
            raise AttributeError(unknown("schedule", name, files))
        importlib.import_module(f"{self.__name__}.{name}")
        function: Generator = self.__dict__[name]
        return function

    def __getitem__(self, choice: str) -> Generator:
        """The function that ``schedule=choice`` calls on the command line, with the arguments that its file gives.

        Raises:
            ArgumentError: there is no such choice.
        """
        file = conf_dir() / "schedule" / f"{choice}.yaml"
        if choice not in self._choices():
            raise unknown_word("schedule", choice, "schedule", self._choices())
        arguments = dict(_yaml(file.read_text(encoding="utf-8")))
        function: Generator = getattr(self, arguments.pop("_target_").rpartition(".")[2])
        known = inspect.signature(function).parameters
        arguments = {
            name: value.replace("${conf_dir:}", str(conf_dir())) if isinstance(value, str) else value
            for name, value in arguments.items()
            if value != "???" and value != known[name].default
        }
        return partial(function, **arguments) if arguments else function

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(entry.name for entry in pkgutil.iter_modules(self.__path__))})

    def names(self) -> list[str]:
        """The choices of ``schedule=`` that can be made for any number of ranks and microbatches, sorted."""
        return [choice for choice in self._choices() if "num_ranks" in inspect.signature(self[choice]).parameters]

    def _choices(self) -> list[str]:
        return sorted(path.stem for path in (conf_dir() / "schedule").glob("*.yaml"))


def generators() -> dict[str, Generator]:
    """The functions ``(num_ranks, num_microbatches, stages_per_rank)`` by the name of their file."""
    found = {}
    for entry in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"pipezoo.schedules.{entry.name}")
        for name, function in vars(module).items():
            own = inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
            if own and "num_ranks" in inspect.signature(function).parameters:
                found[entry.name] = function
    return found


def fixed_orders(num_ranks: int, num_microbatches: int, stages_per_rank: int) -> Iterator[Schedule]:
    """The schedules of these sizes, each order once; those that cannot have them are left out."""
    seen = set()
    by_choice = sorted(generators().values(), key=lambda function: _default(function) != stages_per_rank)
    for function in by_choice:
        try:
            schedule = function(num_ranks, num_microbatches, stages_per_rank)
        except ValueError:
            continue
        if (digest := schedule.digest()) not in seen:
            seen.add(digest)
            yield schedule


def _default(function: Generator) -> object:
    """The stages per rank that a schedule is made for."""
    return inspect.signature(function).parameters["stages_per_rank"].default


@cache
def _yaml(text: str) -> Mapping[str, Any]:
    import yaml  # type: ignore[import-untyped]

    found: Mapping[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return found


ZOO: ScheduleZoo = sys.modules[__name__]  # type: ignore[assignment]
ZOO.__class__ = ScheduleZoo
