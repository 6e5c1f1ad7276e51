"""A loss of a stage's own, added to the loss of the model where it arises: the balance of a router, a regularizer.

stage 1    x = with_auxiliary(x, 0.01 * balance(shares))      x goes on as it is
loss       cross entropy (x, target)                          its gradient, and that of the auxiliary loss
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class _Scale:
    """What an auxiliary loss of one microbatch counts, in this process."""

    value = 1.0


def with_auxiliary(x: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
    """``x`` itself; its backward adds the gradient of ``loss``, which no message has to carry.

    In a pipeline the auxiliary loss of a batch is the mean over its microbatches, or their sum where the model's loss
    is a sum (``reduction``). Anywhere else it counts once for each call, as ``(main + loss).backward()`` would.

    Args:
        x: any tensor that the model's loss depends on.
        loss: one number of this microbatch, weighted already.

    Raises:
        ValueError: the loss is no single number.
    """
    if loss.dim():
        raise ValueError(f"an auxiliary loss is one number, and this one has shape {tuple(loss.shape)}")
    joined: torch.Tensor = _Join.apply(x, loss)  # type: ignore[no-untyped-call]
    return joined


@contextmanager
def auxiliary_counts(scale: float) -> Iterator[None]:
    """Inside, an auxiliary loss counts ``scale``."""
    before, _Scale.value = _Scale.value, scale
    try:
        yield
    finally:
        _Scale.value = before


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
        ctx.scale = loss.new_tensor(_Scale.value)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        return gradient, ctx.scale
