"""The learning rate as it is, from the end of a warm-up on."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from pipezoo.lr_schedules._warmup import rising
from pipezoo.validators import check_int


def constant(optimizer: Optimizer, warmup: int = 0) -> LRScheduler:
    """Rise over ``warmup`` updates, and stay. Raises ArgumentError."""
    return LambdaLR(optimizer, rising(check_int("warmup", warmup, 0), lambda _: 1.0))


def none(optimizer: Optimizer) -> None:
    """Nothing moves the learning rate but the optimizer itself."""
