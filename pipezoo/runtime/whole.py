"""A tensor that several processes share: the part that a process has, and the whole as the unsplit model has it.

    local     the part itself, plain       sums, checks and hashes of one's own
    whole     all parts put together       all who share it call this at the same moment, in the same order
    part_of   of a whole, one's own part   out of a checkpoint

A plain tensor is its own part and its own whole. Nothing of torch.distributed.tensor is imported for it, since that
takes its time.

A packed layer, which is several in one, is cut in each of them: its rows are put in the order of the processes first.

    weight of qkv   q0 q1 k0 k1 v0 v1    ──►    q0 k0 v0 | q1 k1 v1      process 0 | process 1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

PACKED = "packed_layers"  # attribute of a parameter whose rows were reordered: how many layers it is


def is_shared(tensor: torch.Tensor) -> bool:
    """Whether it is a DTensor."""
    return hasattr(tensor, "full_tensor")


def is_cut(tensor: torch.Tensor) -> bool:
    """Whether processes have different parts of it, and not each the whole."""
    return is_shared(tensor) and any(placement.is_shard() for placement in tensor.placements)  # type: ignore[attr-defined]


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
    shared: Any = tensor.detach()
    found: torch.Tensor = shared.full_tensor()
    packed: int = getattr(tensor if like is None else like, PACKED, 1)
    return reordered(found, shared.device_mesh.size(), packed) if packed > 1 else found


def part_of(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A copy of the part of ``value`` that this process has, where ``like`` is, cut as that is."""
    if not is_shared(like):
        return value.to(like.device, copy=True)
    shared: Any = like
    return cut_tensor(value.to(like.device), getattr(like, PACKED, 1), shared.device_mesh, shared.placements)


def cut_tensor(value: torch.Tensor, packed: int, device_mesh: Any, placements: Sequence[Any]) -> torch.Tensor:
    """The part of ``value`` that this process has. Every one has the whole of it, so that nothing is sent.

    Args:
        packed: how many layers it is; of one, 1.
    """
    from torch.distributed.tensor import distribute_tensor

    ordered = reordered(value, packed, device_mesh.size()) if packed > 1 else value
    part: torch.Tensor = distribute_tensor(ordered, device_mesh, placements, src_data_rank=None)
    return part.clone()  # in memory of its own, so that the whole can go


def reordered(rows: torch.Tensor, packed: int, size: int) -> torch.Tensor:
    """The rows of ``packed`` layers in one, in the order of ``size`` processes."""
    by_layer: torch.Tensor = rows.unflatten(0, (packed, size, -1))  # type: ignore[no-untyped-call]
    return by_layer.transpose(0, 1).flatten(0, 2).contiguous()


def zeros_of(parameter: torch.Tensor) -> torch.Tensor:
    """A gradient of zeros."""
    return torch.zeros_like(parameter, requires_grad=False)


def marked_as(parameter: nn.Parameter, other: nn.Parameter) -> nn.Parameter:
    """``other``, which is cut as ``parameter`` is."""
    if hasattr(parameter, PACKED):
        setattr(other, PACKED, getattr(parameter, PACKED))
    return other
