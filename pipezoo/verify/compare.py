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


def compare(
    what: str,
    stage: int | None,
    ours: torch.Tensor | None,
    theirs: torch.Tensor | None,
    may_be_infinite: bool = False,
) -> Difference:
    """One tensor against another, in its own dtype; anything that cannot be compared differs infinitely.

    Args:
        may_be_infinite: whether NaN and infinity are values like any other where their bits agree, as in a buffer that
            holds the mask of an attention. A loss or a gradient that is not finite is never right.
    """
    if ours is None or theirs is None:
        a_word, b_word = (
            "none" if tensor is None else f"a tensor of {tuple(tensor.shape)}" for tensor in (ours, theirs)
        )
        same = ours is None and theirs is None
        return Difference(what, stage, 0.0 if same else math.inf, a_word, b_word, bits_equal=same)
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype or ours.layout != theirs.layout:
        a_word, b_word = (f"{tuple(tensor.shape)} {_kind(tensor)}" for tensor in (ours, theirs))
        return Difference(what, stage, math.inf, a_word, b_word)
    a, b = _values(ours), _values(theirs)
    equal = torch.equal(a.view(torch.uint8), b.view(torch.uint8))
    if not (a.is_floating_point() or a.is_complex()):
        return _compare_whole(what, stage, a, b, equal)
    a, b = (torch.view_as_real(v).reshape(-1) if v.is_complex() else v for v in (a, b))
    a, b = a.double(), b.double()
    broken = ~(torch.isfinite(a) & torch.isfinite(b))
    if broken.any() and not (equal and may_be_infinite):
        index = int(broken.nonzero()[0])
        return Difference(what, stage, math.inf, a[index].item(), b[index].item())
    if equal:
        return Difference(what, stage, 0.0, 0.0, 0.0, bits_equal=True)
    distance = (a - b).abs()
    index = int(distance.argmax())
    scale = b.abs().max().item()
    furthest = distance[index].item()
    relative = furthest / scale if scale > 0 else (math.inf if furthest > 0 else 0.0)
    return Difference(what, stage, relative, a[index].item(), b[index].item())


def _compare_whole(what: str, stage: int | None, a: torch.Tensor, b: torch.Tensor, equal: bool) -> Difference:
    """Integers and booleans have no rounding: they are equal, or they differ infinitely."""
    if equal:
        return Difference(what, stage, 0.0, 0.0, 0.0, bits_equal=True)
    index = int((a != b).nonzero()[0])
    return Difference(what, stage, math.inf, str(a[index].item()), str(b[index].item()))


def _values(tensor: torch.Tensor) -> torch.Tensor:
    """``[numel]`` on the CPU; a sparse tensor with its zeros."""
    dense = tensor.detach().cpu()
    return (dense.to_dense() if dense.layout != torch.strided else dense).contiguous().reshape(-1)


def _kind(tensor: torch.Tensor) -> str:
    layout = "" if tensor.layout == torch.strided else f" {str(tensor.layout)[6:]}"
    return f"{str(tensor.dtype)[6:]}{layout}"


def _show(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.9g}"
