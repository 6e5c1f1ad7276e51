"""What a rank does with the gradients of a step: around the optimizer's own step goes the recipe.

    executor        gradients of this rank's stages
    tied weights    summed over the ranks that hold them
    clip            by the norm of all gradients, gathered from all ranks
    optimizer       steps the parameters of this rank

Every rank calls this at the same moment, also one that has nothing to move: what is shared is shared by all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from pipezoo.experiment.recipe import Recipe
from pipezoo.runtime.finite_check import FiniteCheck
from pipezoo.runtime.gradient_norm import GradientNorm

Numbers = dict[str, float]


@dataclass(frozen=True)
class Update:
    """The recipe of one rank.

    Args:
        parameters: of this rank's stages, by their names in the unsplit model.
        optimizer: of those that learn; None where none does.
        norm: of the gradients of all ranks; None where nobody asks for it.
    """

    recipe: Recipe
    device: torch.device
    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer | None
    finite: FiniteCheck
    norm: GradientNorm | None

    def begin(self) -> None:
        """Before the gradients come."""
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)

    def finish(self, step: int) -> Numbers:
        """Once they are there: move the parameters, and return what a step came to besides its losses."""
        numbers: Numbers = {}
        self._clip(step, numbers)
        if self.optimizer is not None:
            self.optimizer.step()
            self.finite.parameters(step, self.parameters)
        return numbers

    def _clip(self, step: int, numbers: Numbers) -> None:
        if self.norm is None or self.recipe.clip is None:
            return
        norm = self.norm({name: parameter.grad for name, parameter in self.parameters.items()}, self.device)
        numbers["grad_norm"] = norm.item()
        self.finite.norm(step, numbers["grad_norm"])
        torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), self.recipe.clip, norm, foreach=False)
