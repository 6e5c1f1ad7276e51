"""A U-Net: images are halved on the way down, doubled on the way up, and each way up meets its way down again.

    image -> stem -> down ---> down ---> down --> middle        depth = 3
                      |h        |h        |h        |
    image <- head <- up <----- up <----- up <-------/           each way up joins what the way down had at its size

Ronneberger, Fischer, Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation (arXiv:1505.04597), with
group norms and a residual branch in every block, as diffusion models have it. There is no dropout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipezoo.errors import ArgumentError
from pipezoo.models._split_spec import CutBeforeEach
from pipezoo.validators import check_int

GROUPS = 4  # of a group norm
BRANCH = 0.3  # what the last convolution of a branch, and the head, begin with, of what torch gives them


class Residual(nn.Module):
    """Two convolutions on a branch, the input beside: [rows, wide_in, size, size] -> [rows, wide_out, size, size]."""

    def __init__(self, wide_in: int, wide_out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, wide_in), nn.Conv2d(wide_in, wide_out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, wide_out), nn.Conv2d(wide_out, wide_out, 3, padding=1)
        self.beside = nn.Conv2d(wide_in, wide_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        output: Tensor = self.conv2(F.silu(self.norm2(hidden))) + self.beside(x)
        return output


class Down(nn.Module):
    """What the way up will meet again, and the same at half the size."""

    def __init__(self, wide_in: int, wide_out: int) -> None:
        super().__init__()
        self.block, self.halve = Residual(wide_in, wide_out), nn.Conv2d(wide_out, wide_out, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.block(x)
        return self.halve(hidden), hidden


class Up(nn.Module):
    """Twice the size, joined with what the way down had there."""

    def __init__(self, wide_in: int, wide_out: int) -> None:
        super().__init__()
        self.block = Residual(wide_in + wide_out, wide_out)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        twice = F.interpolate(x, scale_factor=2.0, mode="nearest")
        output: Tensor = self.block(torch.cat([twice, hidden], 1))
        return output


class UNet(nn.Module):
    """The whole model; `split_spec` names the cut before every block but the first.

    Args:
        channels: of an image, >= 1.
        width: channels of the first block, a multiple of 4; each block down has twice as many as the one before.
        depth: blocks down, and as many up, >= 1; the size of an image is a multiple of 2 ** depth.
        num_blocks: all blocks, and thereby the most stages; those that go neither down nor up are in the middle,
            >= 2 * depth + 1.
    """

    split_spec = CutBeforeEach("blocks")

    def __init__(self, channels: int = 3, width: int = 8, depth: int = 3, num_blocks: int = 7) -> None:
        for name, value in {"channels": channels, "width": width, "depth": depth}.items():
            check_int(name, value, 1)
        check_int("num_blocks", num_blocks, 2 * depth + 1)
        if width % GROUPS:
            raise ArgumentError("width", width, f"must be a multiple of {GROUPS}")
        super().__init__()
        self.depth = depth
        wide = [width * 2**level for level in range(depth)]
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        down = [Down(wide[max(0, level - 1)], wide[level]) for level in range(depth)]
        up = [Up(wide[min(depth - 1, level + 1)], wide[level]) for level in reversed(range(depth))]
        middle = [Residual(wide[-1], wide[-1]) for _ in range(num_blocks - 2 * depth)]
        self.blocks = nn.ModuleList([*down, *middle, *up])
        self.norm, self.head = nn.GroupNorm(GROUPS, width), nn.Conv2d(width, channels, 3, padding=1)
        with torch.no_grad():
            for block in self.modules():
                if isinstance(block, Residual):
                    block.conv2.weight *= BRANCH
            self.head.weight *= BRANCH

    def forward(self, images: Tensor) -> Tensor:
        """[rows, channels, size, size] -> the same"""
        if images.shape[-1] % 2**self.depth or images.shape[-2] % 2**self.depth:
            size = tuple(images.shape[-2:])
            raise ArgumentError("depth", self.depth, f"the images of {size} are no multiple of {2**self.depth}")
        x, kept = self.stem(images), []
        for block in self.blocks[: self.depth]:
            x, hidden = block(x)
            kept.append(hidden)
        for block in self.blocks[self.depth : -self.depth]:
            x = block(x)
        for block in self.blocks[-self.depth :]:
            x = block(x, kept.pop())
        output: Tensor = self.head(F.silu(self.norm(x)))
        return output
