"""What the schedules share: a rise in equal steps to the whole rate, then a way down of their own.

    factor  1 |      /‾‾\\
              |    /      ‾\\          warmup = 3: the first update has 1/3, the third has 1
        floor |  /           ‾-____
              +--|--|--|---------|---- update
                 0     warmup    updates
"""

from __future__ import annotations

from collections.abc import Callable

from pipezoo.errors import ArgumentError
from pipezoo.validators import check_int, check_number


def check_sizes(warmup: int, updates: int, floor: float) -> float:
    """Raises ArgumentError: a negative warm-up, one that is longer than the way, or a floor above 1."""
    check_int("warmup", warmup, 0)
    check_int("updates", updates, 1)
    if warmup > updates:
        raise ArgumentError("warmup", warmup, f"is longer than the {updates} updates of the schedule", f"0..{updates}")
    floor = check_number("floor", floor)
    if floor > 1:
        raise ArgumentError("floor", floor, "must be a share of optimizer.lr", "0..1")
    return floor


def rising(warmup: int, then: Callable[[int], float]) -> Callable[[int], float]:
    """The factor of an update, counted from 0: rising over the first ``warmup``, and ``then`` of those after."""
    return lambda update: (update + 1) / warmup if update < warmup else then(update - warmup)
