"""The parts of a run, from words of the command line or from Python objects."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from torch import nn

from pipezoo.config.nodes import component_of
from pipezoo.config.resolve import lr_schedule_of
from pipezoo.config.resolved import ResolvedConfig
from pipezoo.errors import MISSING, ArgumentError
from pipezoo.experiment.component import Component
from pipezoo.experiment.python_component import PythonComponent
from pipezoo.installed import conf_dir
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import check_word


@dataclass(frozen=True)
class Made:
    """A part that is there already; each call copies it."""

    made: Any

    def __call__(self) -> Any:
        return copy.deepcopy(self.made)


@dataclass(frozen=True)
class MakeModel:
    """A model from a function without arguments."""

    make: Callable[[], nn.Module]

    def __call__(self) -> nn.Module:
        made = self.make()
        if not isinstance(made, nn.Module):
            raise ValueError(f"made a {type(made).__name__}, no nn.Module")
        return made


@dataclass(frozen=True)
class MakeOptimizer:
    """An optimizer from a function of the parameters."""

    make: Callable[[Any], torch.optim.Optimizer]

    def __call__(self, params: Any) -> torch.optim.Optimizer:
        made = self.make(params)
        if not isinstance(made, torch.optim.Optimizer):
            raise ValueError(f"made a {type(made).__name__}, no torch.optim.Optimizer")
        return made


@dataclass(frozen=True)
class MakeSchedule:
    """A schedule of the learning rate from a function of the optimizer."""

    make: Callable[[torch.optim.Optimizer], Any]

    def __call__(self, optimizer: torch.optim.Optimizer) -> Any:
        return self.make(optimizer)


@dataclass(frozen=True)
class Split:
    """A splitter from a function of model, number of stages and example."""

    cut: Callable[..., Sequence[nn.Module]]

    def __call__(self, model: nn.Module, num_stages: int | None, example: Any) -> list[nn.Module]:
        return list(self.cut(model, num_stages, example))


class FunctionLoss(nn.Module):
    """A function like ``torch.nn.functional.mse_loss`` as a loss: ``reduction`` is that of the function."""

    def __init__(self, function: Callable[..., torch.Tensor], reduction: str) -> None:
        super().__init__()
        self.function, self.reduction = function, reduction

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.function(output, target)


def model_part(model: nn.Module | Callable[[], nn.Module]) -> Component:
    """The initial model, once for every process that asks. Raises ArgumentError."""
    if isinstance(model, nn.Module):
        return _python("model", name_of(model), Made(copy.deepcopy(model).cpu()))
    if callable(model):
        return _python("model", name_of(model), MakeModel(model))
    raise ArgumentError(
        "model", MISSING, f"is of type {type(model).__name__}", "an nn.Module, or a function that makes one"
    )


def split_part(split: str | Sequence[Sequence[str]] | Callable[..., Any]) -> Component:
    """A splitter: a word, the module names of each stage, or a function. Raises ArgumentError."""
    if isinstance(split, str):
        return worded("split", split)
    if callable(split):
        return _python("split", name_of(split), Split(split))
    return worded("split", "modules", modules=[list(names) for names in split])


def schedule_part(schedule: Schedule | str) -> Component:
    """An order as it is, or a word that makes one for the sizes of the run. Raises ArgumentError."""
    if isinstance(schedule, Schedule):
        return _python("schedule", schedule.name, Made(schedule))
    if isinstance(schedule, str):
        return worded("schedule", schedule)
    raise ArgumentError("schedule", MISSING, f"is of type {type(schedule).__name__}", "a Schedule, or its name")


def loss_part(loss: nn.Module | Callable[..., torch.Tensor] | str) -> Component:
    """A loss with its reduction. Raises ArgumentError."""
    if isinstance(loss, str):
        return worded("loss", loss)
    if not isinstance(loss, nn.Module):
        reduction = loss.keywords.get("reduction") if isinstance(loss, partial) else None
        known = inspect.signature(loss).parameters if callable(loss) else {}
        if reduction is None and "reduction" in known:
            reduction = known["reduction"].default
        if not isinstance(reduction, str):
            why = f"{name_of(loss)} does not say how it reduces a batch (an argument reduction='mean' or 'sum')"
            raise ArgumentError("loss", MISSING, why, "nn.MSELoss(), functional.cross_entropy, a word of conf/loss")
        loss = FunctionLoss(loss, reduction)
        return _python("loss", name_of(loss.function), Made(loss))
    return _python("loss", name_of(loss), Made(loss))


def optimizer_part(optimizer: Callable[[Any], torch.optim.Optimizer] | str) -> Component:
    """A function of the parameters, or a word. Raises ArgumentError."""
    if isinstance(optimizer, str):
        return worded("optimizer", optimizer)
    if isinstance(optimizer, torch.optim.Optimizer):
        kind = type(optimizer).__name__
        why = f"this {kind} holds the parameters of one model, and every rank has its own"
        raise ArgumentError("optimizer", MISSING, why, f"functools.partial(torch.optim.{kind}, lr=...)")
    if not callable(optimizer):
        raise ArgumentError(
            "optimizer", MISSING, f"is of type {type(optimizer).__name__}", "a function of the parameters"
        )
    return _python("optimizer", name_of(optimizer), MakeOptimizer(optimizer))


def lr_schedule_part(schedule: Callable[[torch.optim.Optimizer], Any] | str | None) -> Component | None:
    """A function of an optimizer, or a word. Raises ArgumentError."""
    if schedule is None:
        return None
    if isinstance(schedule, str):
        return lr_schedule_of(worded("lr_schedule", schedule))
    if isinstance(schedule, torch.optim.lr_scheduler.LRScheduler):
        kind = type(schedule).__name__
        why = f"this {kind} holds the optimizer of one model, and every rank has its own"
        valid = f"functools.partial(torch.optim.lr_scheduler.{kind}, ...)"
        raise ArgumentError("lr_schedule", MISSING, why, valid)
    if not callable(schedule):
        raise ArgumentError(
            "lr_schedule", MISSING, f"is of type {type(schedule).__name__}", "a function of the optimizer"
        )
    return _python("lr_schedule", name_of(schedule), MakeSchedule(schedule))


def worded(group: str, choice: str, **arguments: Any) -> Component:
    """What ``group=choice`` is on the command line. Raises ArgumentError: there is no such choice."""
    folder = conf_dir() / group
    check_word(group, choice, sorted(path.stem for path in folder.glob("*.yaml")), group)
    node = yaml.safe_load((folder / f"{choice}.yaml").read_text(encoding="utf-8"))
    node = {key: _resolved(value) for key, value in node.items()}
    return component_of(group, {**node, **arguments}, ResolvedConfig({}, {group: choice}))


def name_of(thing: Any) -> str:
    """What a person calls it: the name of a function or a class, the class of an object."""
    if isinstance(thing, partial):
        return name_of(thing.func)
    return str(getattr(thing, "__name__", type(thing).__name__))


def _python(group: str, choice: str, made: Callable[..., Any]) -> Component:
    return PythonComponent(group, choice, made=made)


def _resolved(value: Any) -> Any:
    return value.replace("${conf_dir:}", str(conf_dir())) if isinstance(value, str) else value
