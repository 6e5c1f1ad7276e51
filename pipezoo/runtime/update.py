"""What a rank does with the gradients of a step: around the optimizer's own step goes the recipe.

    executor        gradients of this rank's stages, of as many steps as are accumulated
    tied weights    summed over the ranks that hold them
    masters         take the gradients in float32
    loss scale      divided out; where any rank has one that is not finite, no rank moves
    clip            by the norm of all gradients, gathered from all ranks
    optimizer       moves the parameters of this rank
    schedule        moves the learning rate, also where nothing was moved
    average         takes in what there is now

Every rank calls this at the same moment, also one that has nothing to move: what is shared is shared by all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipezoo.experiment.recipe import Recipe
from pipezoo.runtime.finite_check import FiniteCheck
from pipezoo.runtime.gradient_norm import GradientNorm
from pipezoo.runtime.loss_scale import LossScale
from pipezoo.runtime.moving_average import MovingAverage
from pipezoo.runtime.optimizing import Optimized
from pipezoo.runtime.whole import is_shared, local

Numbers = dict[str, float]


@dataclass
class Update:
    """The recipe of one rank.

    Args:
        parameters: of this rank's stages, by their names in the unsplit model.
        optimized: the optimizer of those that learn; None where none does.
        norm: of the gradients of all ranks; None where nobody asks for it.
        scale: of the losses; None where they are as they are.
        average: of what the optimizer moves; None where nobody asks for it.
        leave_gradients: called once, with the gradients of the first update that moves something.
        loss_divisor: how many steps a mean loss is averaged over.
    """

    recipe: Recipe
    device: torch.device
    parameters: Mapping[str, nn.Parameter]
    optimized: Optimized | None
    finite: FiniteCheck
    norm: GradientNorm | None = None
    scale: LossScale | None = None
    average: MovingAverage | None = None
    leave_gradients: Callable[[], None] | None = None
    loss_divisor: int = 1

    @property
    def loss_factor(self) -> float:
        """What the gradients of this step's losses are multiplied by."""
        return (1.0 if self.scale is None else self.scale.value) / self.loss_divisor

    def begin(self) -> None:
        """Before the gradients come."""
        if self.optimized is not None:
            self.optimized.clear()

    def finish(self, step: int) -> Numbers:
        """Once they are there: move the parameters, and return what a step came to besides its losses."""
        numbers: Numbers = {}
        skipped = self._unscale(step, numbers)
        if not skipped:
            if self.leave_gradients is not None:
                self.leave_gradients()
                self.leave_gradients = None
            if self.optimized is not None:
                self.optimized.pull()
            self._clip(step, numbers)
        if self.optimized is not None:
            if self.optimized.schedule is not None:
                numbers["lr"] = self.optimized.rate
            if not skipped:
                self.optimized.move()
                self.finite.parameters(step, self.parameters)
            self.optimized.move_rate()
        if self.average is not None:
            self.average.update()
        return numbers

    def _unscale(self, step: int, numbers: Numbers) -> bool:
        """Whether this update is skipped, by all ranks."""
        if self.scale is None:
            self.finite.gradients(step, self.parameters)
            return False
        numbers["loss_scale"] = self.scale.value
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        skipped = self.scale.unscale(gradients, self.device)
        self.scale.update(skipped)
        return skipped

    def _clip(self, step: int, numbers: Numbers) -> None:
        if self.norm is None or self.recipe.clip is None:
            return
        moved = {} if self.optimized is None else self.optimized.named
        norm = self.norm({name: parameter.grad for name, parameter in moved.items()}, self.device)
        numbers["grad_norm"] = norm.item()
        self.finite.norm(step, numbers["grad_norm"])
        torch.nn.utils.clip_grads_with_norm_(map(_own, moved.values()), self.recipe.clip, norm, foreach=False)

    def hear(self, loss: float) -> None:
        """What an evaluation came to, on every rank."""
        if self.optimized is not None:
            self.optimized.hear(loss)

    def capture(self) -> dict[str, Any]:
        """What the next update depends on besides the optimizer."""
        found: dict[str, Any] = {}
        if self.scale is not None:
            found["loss_scale"] = self.scale.capture()
        if self.average is not None:
            found["average"] = self.average.capture()
        return found

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what all ranks had captured, put together."""
        if self.scale is not None and "loss_scale" in saved:
            self.scale.restore(saved["loss_scale"])
        if self.average is not None and "average" in saved:
            self.average.restore(saved["average"])


def _own(parameter: nn.Parameter) -> torch.Tensor:
    """The part of a shared parameter that this process has, with its gradient."""
    if not is_shared(parameter):
        return parameter
    part = local(parameter.detach())
    part.grad = None if parameter.grad is None else local(parameter.grad)
    return part
