"""Schedules: one pure function a file, ``(num_ranks, num_microbatches, stages_per_rank) -> Schedule``.

The folder is the list.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator

import pipezoo.schedules
from pipezoo.schedule.schedule import Schedule

Generator = Callable[..., Schedule]


def generators() -> dict[str, Generator]:
    """The functions ``(num_ranks, num_microbatches, stages_per_rank)`` by the name of their file."""
    found = {}
    for entry in pkgutil.iter_modules(pipezoo.schedules.__path__):
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
