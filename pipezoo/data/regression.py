"""Random features and a fixed affine map of them to learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from pipezoo.data.batch import Batch, generator
from pipezoo.validators import check_int


def batches(batch_size: int, seed: int, d_hid: int, extra: Sequence[str] = ()) -> Callable[[int], Batch]:
    """Batches of standard normal x [batch_size, d_hid] and target = b + x @ W / 4 [batch_size, d_hid].

    b (standard normal) and W (x @ W has unit variance) are drawn once from `seed`; x is new at every step. Most of
    the target is b, which a model learns in a few steps, while d_hid samples and more are needed for W.

    Args:
        batch_size: rows of a batch, >= 1.
        seed: fixes b, W and, with the step, every batch, >= 0.
        d_hid: features of x and of the target, >= 1.
        extra: names of further inputs of the model's forward, each a standard normal [batch_size, d_hid].
    """
    check_int("batch_size", batch_size, 1)
    check_int("d_hid", d_hid, 1)
    fixed = generator(seed)
    offset = torch.randn(d_hid, generator=fixed)
    weight = torch.randn(d_hid, d_hid, generator=fixed) / (4 * math.sqrt(d_hid))

    def batch(step: int) -> Batch:
        random = generator(seed, step)
        x = torch.randn(batch_size, d_hid, generator=random)
        kwargs = {name: torch.randn(batch_size, d_hid, generator=random) for name in extra}
        return Batch((x,), kwargs, offset + x @ weight)

    return batch
