"""How far one value is from another, in a way that no NaN, no missing tensor and no lost shape can slip through.

A difference is measured against the largest value of its tensor: element by element it would be noise where values
are near zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Difference:
    """How far one value of the pipeline is from the reference. ``relative`` is infinite where they cannot be
    compared."""

    what: str
    stage: int | None
    relative: float
    ours: float | str
    theirs: float | str
    bits_equal: bool = False

    @property
    def distance(self) -> float:
        """The absolute difference; NaN where there are no two numbers."""
        if isinstance(self.ours, str) or isinstance(self.theirs, str):
            return math.nan
        return abs(self.ours - self.theirs)

    def __str__(self) -> str:
        where = "" if self.stage is None else f" (stage {self.stage})"
        return f"{self.what}{where}: pipeline {_show(self.ours)}, one device {_show(self.theirs)}"


def compare(what: str, stage: int | None, ours: torch.Tensor | None, theirs: torch.Tensor | None) -> Difference:
    """One tensor against another; anything that cannot be compared differs infinitely."""
    if ours is None or theirs is None:
        a_word, b_word = (
            "none" if tensor is None else f"a tensor of {tuple(tensor.shape)}" for tensor in (ours, theirs)
        )
        same = ours is None and theirs is None
        return Difference(what, stage, 0.0 if same else math.inf, a_word, b_word, bits_equal=same)
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        a_word, b_word = (f"{tuple(tensor.shape)} {str(tensor.dtype)[6:]}" for tensor in (ours, theirs))
        return Difference(what, stage, math.inf, a_word, b_word)
    ours, theirs = ours.detach().cpu().contiguous(), theirs.detach().cpu().contiguous()
    equal = torch.equal(ours.reshape(-1).view(torch.uint8), theirs.reshape(-1).view(torch.uint8))
    a, b = ours.double().reshape(-1), theirs.double().reshape(-1)
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        index = int((~(torch.isfinite(a) & torch.isfinite(b))).nonzero()[0])
        return Difference(what, stage, math.inf, a[index].item(), b[index].item())
    if equal or not a.numel():
        return Difference(what, stage, 0.0, 0.0, 0.0, bits_equal=True)
    distance = (a - b).abs()
    index = int(distance.argmax())
    scale = b.abs().max().item()
    furthest = distance[index].item()
    relative = furthest / scale if scale > 0 else (math.inf if furthest > 0 else 0.0)
    return Difference(what, stage, relative, a[index].item(), b[index].item())


def _show(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.9g}"
