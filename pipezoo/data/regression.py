"""Random features and a fixed linear map of them to learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from pipezoo.arguments import check_int
from pipezoo.data.batch import Batch, generator


def batches(batch_size: int, seed: int, d_hid: int, extra: Sequence[str] = ()) -> Callable[[int], Batch]:
    """Batches of x [batch_size, d_hid] and target = x @ W [batch_size, d_hid], both of unit variance.

    W is drawn once from `seed`; x is new at every step.

    Args:
        batch_size: rows of a batch, >= 1.
        seed: fixes W and, with the step, every batch, >= 0.
        d_hid: features of x and of the target, >= 1.
        extra: names of further inputs of the model's forward, each a standard normal [batch_size, d_hid].
    """
    check_int("batch_size", batch_size, 1)
    check_int("d_hid", d_hid, 1)
    weight = torch.randn(d_hid, d_hid, generator=generator(seed)) / math.sqrt(d_hid)

    def batch(step: int) -> Batch:
        random = generator(seed, step)
        x = torch.randn(batch_size, d_hid, generator=random)
        kwargs = {name: torch.randn(batch_size, d_hid, generator=random) for name in extra}
        return Batch((x,), kwargs, x @ weight)

    return batch
