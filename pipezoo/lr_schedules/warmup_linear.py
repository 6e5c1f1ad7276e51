"""Warm-up, then down a straight line."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from pipezoo.lr_schedules._warmup import check_sizes, rising


def warmup_linear(optimizer: Optimizer, updates: int, warmup: int = 0, floor: float = 0.0) -> LRScheduler:
    """Rise over ``warmup`` updates, then fall to ``floor`` times the rate at ``updates``. Raises ArgumentError."""
    floor, way = check_sizes(warmup, updates, floor), max(1, updates - warmup)
    return LambdaLR(optimizer, rising(warmup, lambda n: floor + (1 - floor) * max(0.0, 1 - n / way)))
