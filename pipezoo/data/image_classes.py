"""Random images whose class follows from their content."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pipezoo.data.batch import Batch, generator
from pipezoo.validators import check_int


def batches(
    batch_size: int, seed: int, size: int = 32, channels: int = 3, num_classes: int = 10
) -> Callable[[int], Batch]:
    """Images ``[batch_size, channels, size, size]``, and as target ``[batch_size]`` the class of each.

    The class is the strip of the image, of ``num_classes`` side by side, that is brightest on average.

    Raises ValueError for a size below 1, and for more classes than columns.
    """
    for name, value in (("batch_size", batch_size), ("size", size), ("channels", channels)):
        check_int(name, value, 1)
    check_int("num_classes", num_classes, 1, size)

    def batch(step: int) -> Batch:
        images = torch.randn(batch_size, channels, size, size, generator=generator(seed, step))
        strips = torch.tensor_split(images, num_classes, dim=3)
        return Batch((images,), {}, torch.stack([strip.mean((1, 2, 3)) for strip in strips], 1).argmax(1))

    return batch
