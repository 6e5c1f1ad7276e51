"""The learning rates of the schedules, update by update."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from pipezoo.errors import ArgumentError
from pipezoo.lr_schedules.constant import constant, none
from pipezoo.lr_schedules.warmup_cosine import warmup_cosine
from pipezoo.lr_schedules.warmup_linear import warmup_linear


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=8.0)


def rates(make: Callable[..., LRScheduler], count: int) -> list[float]:
    stepped = optimizer()
    schedule, found = make(stepped), []
    for _ in range(count):
        found.append(round(stepped.param_groups[0]["lr"], 6))
        stepped.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (constant, [8.0, 8.0, 8.0]),
        (partial(constant, warmup=2), [4.0, 8.0, 8.0]),
        (partial(warmup_linear, updates=6, warmup=2), [4.0, 8.0, 8.0, 6.0, 4.0, 2.0, 0.0]),
        (partial(warmup_linear, updates=4, floor=0.5), [8.0, 7.0, 6.0, 5.0, 4.0, 4.0]),
        (partial(warmup_cosine, updates=4), [8.0, 6.828427, 4.0, 1.171573, 0.0, 0.0]),
        (partial(warmup_cosine, updates=4, warmup=2, floor=0.25), [4.0, 8.0, 8.0, 5.0, 2.0]),
        (partial(warmup_cosine, updates=2, warmup=2), [4.0, 8.0, 8.0, 0.0]),
    ],
)
def test_the_rates(make: Callable[..., LRScheduler], expected: list[float]) -> None:
    assert rates(make, len(expected)) == expected


def test_none_leaves_the_rate_to_the_optimizer() -> None:
    assert none(optimizer()) is None


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            partial(warmup_cosine, updates=4, warmup=5),
            "warmup=5: is longer than the 4 updates of the schedule; valid: 0..4",
        ),
        (partial(warmup_linear, updates=4, warmup=-1), "warmup=-1: must be an int >= 0"),
        (partial(warmup_linear, updates=4, floor=2), "floor=2.0: must be a share of optimizer.lr; valid: 0..1"),
        (partial(constant, warmup=1.5), "warmup=1.5: must be an int >= 0"),
    ],
)
def test_what_is_no_schedule_is_refused(make: Callable[..., LRScheduler], line: str) -> None:
    with pytest.raises(ArgumentError) as error:
        make(optimizer())
    assert str(error.value) == line
