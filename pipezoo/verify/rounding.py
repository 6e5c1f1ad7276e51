"""Does an optimizer make rounding large? Adam moves a value whose gradient is zero but for rounding by a full step.

    gradient   1, +1e-9        movement of the second value: with SGD a billionth of the first one's,
    gradient   1, -1e-9        with Adam as large, and in either direction

Where sums are added in another order than on one device, what follows such a step is not to be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

NOISE, LARGE = 1e-9, 1e-3


def makes_rounding_large(make: Callable[[Any], torch.optim.Optimizer]) -> bool:
    """Whether an optimizer with these arguments does. True where it cannot be tried.

    Args:
        make: given parameters.
    """
    moved = []
    try:
        for sign in (1.0, -1.0):
            parameter = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
            before = parameter.detach().clone()
            optimizer = make([parameter])
            parameter.grad = torch.tensor([[1.0, sign * NOISE], [1.0, 1.0]], dtype=torch.float64)
            optimizer.step()
            moved.append(parameter.detach() - before)
    except Exception:
        return True
    first, second = moved
    return bool((first - second).abs().max() > LARGE * first.abs().max())
