"""An optimizer of some of a model's parameters, with what moves its learning rate: made, stepped, saved and restored.

of          optimizer of the parameters, in their groups; then the schedule of its learning rate
step        optimizer, then schedule
capture     what the next step of both depends on (optimizer_state.py)
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from pipezoo.errors import ConfigError
from pipezoo.experiment.recipe import Recipe
from pipezoo.no_compiler import no_compiler
from pipezoo.runtime.checkpoint import Checkpoint
from pipezoo.runtime.optimizer_state import (
    CannotRestoreError,
    began,
    capture,
    copied,
    names_of,
    restore,
    same,
    saved_of,
)
from pipezoo.runtime.parameter_groups import in_groups
from pipezoo.runtime.whole import marked_as, part_of

Named = Mapping[str, nn.Parameter]
MakeSchedule = Callable[[torch.optim.Optimizer], "LRScheduler | None"]
SCHEDULE, MASTERS = "lr_schedule", "masters"  # in what is saved of an optimizer


def no_schedule(optimizer: torch.optim.Optimizer) -> None:
    """The learning rate is the optimizer's own."""


def asks_for_loss(schedule: LRScheduler) -> bool:
    """Whether it moves by what a loss comes to, as ``ReduceLROnPlateau`` does, and not by the number of updates."""
    first = next(iter(inspect.signature(schedule.step).parameters.values()), None)
    return first is not None and first.default is first.empty and first.kind is not first.VAR_POSITIONAL


@dataclass(frozen=True)
class Optimized:
    """An optimizer at work.

    Args:
        named: what it moves, by names in the unsplit model: parameters, or their masters.
        parameters: the model's own, by the same names.
        told: what :func:`~pipezoo.runtime.optimizer_state.began` said of it when it was new.
    """

    optimizer: torch.optim.Optimizer
    named: Named
    told: dict[str, Any]
    schedule: LRScheduler | None
    parameters: Named

    @property
    def masters(self) -> dict[str, nn.Parameter]:
        """Of the parameters that have one."""
        return {name: master for name, master in self.named.items() if master is not self.parameters[name]}

    @property
    def rate(self) -> float:
        """The learning rate of the first group in the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    @no_compiler()
    def clear(self) -> None:
        """Before the gradients come."""
        if type(self.optimizer).zero_grad is not torch.optim.Optimizer.zero_grad:
            self.optimizer.zero_grad(set_to_none=True)
        for moved, parameter in zip(self.named.values(), self.parameters.values(), strict=True):
            moved.grad = parameter.grad = None

    def pull(self) -> None:
        """Once they are there: to the masters."""
        for name, master in self.masters.items():
            gradient = self.parameters[name].grad
            master.grad = None if gradient is None else gradient.to(master.dtype)

    @torch.no_grad()
    @no_compiler()
    def move(self) -> None:
        """Move the parameters."""
        self.optimizer.step()
        for name, master in self.masters.items():
            self.parameters[name].copy_(master)

    def step(self) -> None:
        """Move the parameters, then the learning rate."""
        self.move()
        self.move_rate()

    def move_rate(self) -> None:
        """The learning rate is a function of the number of updates, also of those that moved nothing."""
        if self.schedule is not None and not asks_for_loss(self.schedule):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                self.schedule.step()

    def hear(self, loss: float) -> None:
        """A schedule that asks for a loss is told that of every evaluation."""
        if self.schedule is not None and asks_for_loss(self.schedule):
            self.schedule.step(loss)  # type: ignore[arg-type]

    @no_compiler()
    def capture(self) -> dict[str, Any]:
        """What the next step depends on. Raises ValueError: the schedule holds more than plain values."""
        state = capture(self.optimizer, names_of(self.named.items()), self.told)
        if masters := self.masters:
            state[MASTERS] = {name: copied(master, self.parameters[name]) for name, master in masters.items()}
        if self.schedule is not None:
            state[SCHEDULE] = {"kind": type(self.schedule).__name__, "state": saved_of(self.schedule)}
        return state

    @no_compiler()
    def restore(self, saved: Checkpoint) -> None:
        """Go on where those of the checkpoint ended.

        Raises:
            ConfigError: it is another kind of optimizer or schedule, or what was saved is of no use for these.
        """
        parts = [part for part in saved.optimizers if part is not None]
        try:
            restore(self.optimizer, names_of(self.named.items()), parts, self.told["options"])
            self._restore_schedule(parts)
            self._restore_masters(parts)
        except CannotRestoreError as error:
            raise ConfigError(f"resume={saved.path}: {error}") from error

    def _restore_schedule(self, parts: list[dict[str, Any]]) -> None:
        found = [part.get(SCHEDULE) for part in parts if part["names"]]
        then = next((one["kind"] for one in found if one), None)
        now = None if self.schedule is None else type(self.schedule).__name__
        if found and then != now:
            raise CannotRestoreError(f"was trained with {then or 'no'} lr_schedule, and this is {now or 'none'}")
        if self.schedule is not None and found and found[0]:
            self._check_rates(parts)
            self.schedule.load_state_dict(found[0]["state"])
            for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
                if not group["params"]:  # whose options are saved with no name
                    group["lr"] = rate

    def _restore_masters(self, parts: list[dict[str, Any]]) -> None:
        saved = {name: master for part in parts for name, master in part.get(MASTERS, {}).items()}
        for name, parameter in self.named.items():
            is_master = parameter is not self.parameters[name]
            if is_master != (name in saved):
                raise CannotRestoreError(
                    f"{name} was trained {'without' if is_master else 'with'} a float32 master; "
                    f"valid: precision={'none' if is_master else 'bf16_master'}"
                )
            if is_master:
                with torch.no_grad():
                    parameter.copy_(part_of(saved[name], self.parameters[name]))

    def _check_rates(self, parts: list[dict[str, Any]]) -> None:
        """A schedule goes on from the rate that it began with."""
        then = {name: options["lr"] for part in parts for name, options in part["began"]["options"].items()}
        for name, options in self.told["options"].items():
            if name in then and not same(then[name], options["lr"]):
                raise CannotRestoreError(f"lr began at {then[name]}, and is to begin at {options['lr']} now")


@dataclass(frozen=True)
class Optimizing:
    """Makes them for any part of a model.

    Args:
        make: an optimizer of parameters, or of groups of them as torch has them.
        make_schedule: of an optimizer; gives None where nothing is to move its learning rate.
        masters: whether what moves are float32 copies of coarser parameters.
        places: by the name of a parameter its group (:func:`~pipezoo.runtime.parameter_groups.places_of`).
    """

    make: Callable[[Any], torch.optim.Optimizer]
    recipe: Recipe = field(default_factory=Recipe)
    make_schedule: MakeSchedule = no_schedule
    masters: bool = False
    places: Mapping[str, int] = field(default_factory=dict)

    @no_compiler()
    def of(self, named: Named) -> Optimized:
        """For those of these parameters that learn, by their names in the unsplit model; there is at least one."""
        learning = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
        moved = {name: master_of(p) if self.masters else p for name, p in learning.items()}
        optimizer = self.make(in_groups(self.recipe.groups, self.places, moved))
        told = began(optimizer, names_of(moved.items()))
        schedule = self.make_schedule(optimizer)
        if schedule is not None and not isinstance(schedule, LRScheduler):
            raise ValueError(f"made a {type(schedule).__name__}; valid: a torch.optim.lr_scheduler.LRScheduler")
        return Optimized(optimizer, moved, told, schedule, learning)


def master_of(parameter: nn.Parameter) -> nn.Parameter:
    """A float32 copy of a float that has fewer bits; any other parameter is its own."""
    if parameter.dtype in (torch.bfloat16, torch.float16):
        return marked_as(parameter, nn.Parameter(parameter.detach().float()))
    return parameter
