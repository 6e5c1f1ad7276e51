"""The scale of the losses, shared by all ranks: where one finds a gradient that is not finite, all skip the step.

    loss              its gradient begins at scale instead of 1
    rank 0  finite ┐
    rank 1  inf    ┴── largest of all: 1 ──► nobody steps, and the scale falls on every rank

torch's ``GradScaler`` knows of one process; a scaler a rank would let some of them step and others not, and their
scales would part for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from pipezoo.experiment.precision import LossScaling
from pipezoo.runtime.whole import local


class LossScale:
    """One rank's copy of it; all are equal, step after step.

    Args:
        scaling: how it begins and moves.
    """

    def __init__(self, scaling: LossScaling) -> None:
        self._scaling = scaling
        self.value, self._since = float(np.float32(scaling.start)), 0

    def unscale(self, gradients: Iterable[torch.Tensor], device: torch.device) -> bool:
        """Divide this rank's gradients by the scale. Whether those of any rank are not finite; all ranks call it."""
        inverse = torch.tensor(1.0 / self.value, dtype=torch.float64).float()
        infinite = torch.zeros((), device=device)
        for gradient in map(local, gradients):
            infinite = torch.maximum(infinite, (~torch.isfinite(gradient)).any().to(infinite))
            gradient.mul_(inverse.to(gradient.device))
        return self.shared(infinite)

    def shared(self, infinite: torch.Tensor) -> bool:
        """Whether any rank found one."""
        dist.all_reduce(infinite, op=dist.ReduceOp.MAX)
        return bool(infinite)

    def update(self, skipped: bool) -> None:
        """After a step: as ``GradScaler`` does, in float32."""
        if skipped:
            self.value, self._since = _float32(self.value * self._scaling.backoff), 0
            return
        self._since += 1
        if self._since == self._scaling.interval:
            grown = _float32(self.value * self._scaling.growth)
            self.value, self._since = (grown if np.isfinite(grown) else self.value), 0

    def capture(self) -> dict[str, Any]:
        return {"scale": self.value, "since": self._since}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.value, self._since = float(state["scale"]), int(state["since"])


def _float32(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


class _Scaled(torch.autograd.Function):
    """A number as it is, whose gradient is scaled and divided."""

    @staticmethod
    def forward(context: Any, value: torch.Tensor, scale: float, divisor: int) -> torch.Tensor:  # type: ignore[override]
        context.factors = scale, divisor
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        scale, divisor = context.factors
        if scale != 1.0:
            gradient = gradient * torch.tensor(scale, dtype=torch.float32, device=gradient.device)
        return gradient / divisor if divisor != 1 else gradient, None, None


def with_scaled_gradient(
    loss: Callable[..., torch.Tensor], scale: LossScale | None, divisor: int
) -> Callable[..., torch.Tensor]:
    """A loss of the same value, whose gradient begins at the scale over ``divisor``."""
    if scale is None and divisor == 1:
        return loss

    def scaled(*values: Any) -> torch.Tensor:
        return _Scaled.apply(loss(*values), 1.0 if scale is None else scale.value, divisor)  # type: ignore[no-any-return, no-untyped-call]

    return scaled
