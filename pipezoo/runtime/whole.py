"""A tensor that several processes share: the part that a process has, and the whole as the unsplit model has it.

    local     the part itself, plain       sums, checks and hashes of one's own
    whole     all parts put together       all who share it call this at the same moment, in the same order
    part_of   of a whole, one's own part   out of a checkpoint

A plain tensor is its own part and its own whole. Nothing of torch.distributed.tensor is imported for it.
"""

from __future__ import annotations

import torch
from torch import nn

PACKED = "packed_layers"  # attribute of a parameter whose rows were reordered: how many layers it is


def is_shared(tensor: torch.Tensor) -> bool:
    """Whether it is a DTensor."""
    return hasattr(tensor, "full_tensor")


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of this process; what is done to it in place is done to the tensor."""
    return tensor.to_local() if is_shared(tensor) else tensor  # type: ignore[attr-defined, no-any-return]


def whole(tensor: torch.Tensor, like: torch.Tensor | None = None) -> torch.Tensor:
    """All of it, without a graph.

    Args:
        like: the parameter that it belongs to, cut as that is; None: itself.
    """
    if not is_shared(tensor):
        return tensor.detach()
    from pipezoo.runtime.cut_layers import whole_of

    return whole_of(tensor, tensor if like is None else like)


def part_of(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A copy of the part of ``value`` that this process has, where ``like`` is, cut as that is."""
    if not is_shared(like):
        return value.to(like.device, copy=True)
    from pipezoo.runtime import cut_layers

    return cut_layers.part_of(value, like)


def zeros_of(parameter: torch.Tensor) -> torch.Tensor:
    """A gradient of zeros."""
    return torch.zeros_like(parameter, requires_grad=False)


def marked_as(parameter: nn.Parameter, other: nn.Parameter) -> nn.Parameter:
    """``other``, which is cut as ``parameter`` is."""
    if hasattr(parameter, PACKED):
        setattr(other, PACKED, getattr(parameter, PACKED))
    return other


def is_cut(tensor: torch.Tensor) -> bool:
    """Whether processes have different parts of it, and not each the whole."""
    return is_shared(tensor) and any(placement.is_shard() for placement in tensor.placements)  # type: ignore[attr-defined]
