"""What every source of data returns, and where its randomness comes from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from pipezoo.validators import check_int


class Batch(NamedTuple):
    """One step's inputs and target; every tensor has one row per sample, and floats are float32.

    A target is a tensor, or a container of tensors that the loss takes apart.

    Inputs are tensors, None, plain values that are the same in every step, or containers of these.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Any


def generator(seed: int, *path: int) -> torch.Generator:
    """A CPU generator fixed by `seed` and the numbers after it (a step, say), all >= 0.

    Different numbers give streams that are independent for all practical purposes (numpy's SeedSequence).
    """
    check_int("seed", seed, 0)
    state = np.random.SeedSequence((seed, *path)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
