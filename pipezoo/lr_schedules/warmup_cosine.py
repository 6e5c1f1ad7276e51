"""Warm-up, then half a cosine down (Loshchilov and Hutter, SGDR, arXiv:1608.03983, without restarts)."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from pipezoo.lr_schedules._warmup import check_sizes, rising


def warmup_cosine(optimizer: Optimizer, updates: int, warmup: int = 0, floor: float = 0.0) -> LRScheduler:
    """Rise over ``warmup`` updates, then fall to ``floor`` times the rate at ``updates``. Raises ArgumentError."""
    floor, way = check_sizes(warmup, updates, floor), max(1, updates - warmup)
    return LambdaLR(
        optimizer,
        rising(warmup, lambda n: floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, n / way)))),
    )
