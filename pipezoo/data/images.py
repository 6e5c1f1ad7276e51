"""Smooth random images under noise, to be made clean."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from pipezoo.data.batch import Batch, generator
from pipezoo.validators import check_int, check_number

COARSE = 4  # pixels of the images before they are stretched


def batches(
    batch_size: int, seed: int, channels: int = 3, size: int = 16, noise: float = 0.5
) -> Callable[[int], Batch]:
    """Batches of noisy images and, as target, the same without noise: [batch_size, channels, size, size] both.

    An image is 4 x 4 standard normal values a channel, stretched to its size; all are new at every step.

    Args:
        batch_size: images of a batch, >= 1.
        seed: fixes, with the step, every batch, >= 0.
        channels: of an image, >= 1.
        size: rows and columns of pixels, >= 4.
        noise: standard deviation of what is added, >= 0.
    """
    check_int("batch_size", batch_size, 1)
    check_int("channels", channels, 1)
    check_int("size", size, COARSE)
    check_number("noise", noise)

    def batch(step: int) -> Batch:
        random = generator(seed, step)
        coarse = torch.randn(batch_size, channels, COARSE, COARSE, generator=random)
        clean = F.interpolate(coarse, size=(size, size), mode="bilinear")
        return Batch((clean + noise * torch.randn(clean.shape, generator=random),), {}, clean)

    return batch
