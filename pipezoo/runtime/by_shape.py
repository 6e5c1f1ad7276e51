"""The executor of a rank for batches of several shapes: one program each, compiled when the first batch of it comes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pipezoo.runtime.action_timer import Recorder
from pipezoo.runtime.activation_memory import ActivationMeter
from pipezoo.runtime.executor import RankExecutor, Tensors


class ByShape:
    """Runs the steps of a rank.

    Args:
        make: the executor for batches of one shape, by its number in ``Shapes``.
    """

    def __init__(self, make: Callable[[int], RankExecutor]) -> None:
        self._make, self._made = make, {0: make(0)}
        self._now = self._made[0]

    def choose(self, shape: int) -> None:
        """The next step has batches of this shape."""
        if shape not in self._made:
            self._made[shape] = self._make(shape)
        self._now = self._made[shape]

    def observe(self, recorder: Recorder, meter: ActivationMeter | None) -> None:
        self._now.observe(recorder, meter)

    def step(self, inputs: Tensors, target: torch.Tensor | None) -> list[torch.Tensor]:
        return self._now.step(inputs, target)
