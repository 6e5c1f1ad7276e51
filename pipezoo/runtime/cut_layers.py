"""One layer, cut over the processes of a stage: parameters become DTensors, and hooks say what goes in and comes out.

    columns    whole x ──► x W_r' + b_r ──► part r             rows    part r ──► sum over r of x_r W_r' ──► whole y

Imports torch's DTensor, which takes its time: only where a stage is shared.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_module

from pipezoo.runtime.tensor_parallel import Cut, Cuts
from pipezoo.runtime.whole import PACKED


def cut_stages(cuts: Cuts, stages: Iterable[nn.Module], device_mesh: DeviceMesh) -> None:
    """Have the layers of stages, which one process holds, keep its part of their parameters.

    Args:
        device_mesh: of one dimension, the processes that share these stages.
    """
    known: dict[nn.Parameter, nn.Parameter] = {}
    for stage in stages:
        for module, cut in cuts.of_stage(stage):
            cut_layer(module, cut, device_mesh, known)


def cut_layer(module: nn.Module, cut: Cut, device_mesh: DeviceMesh, known: dict[nn.Parameter, nn.Parameter]) -> None:
    """Cut a layer, as ``torch.distributed.tensor.parallel`` does, which knows no packed layers and no traced ones.

    Args:
        known: what whole parameters became: a tied one becomes it once.
    """
    takes: Placement = Shard(-1) if cut.kind == "rows" and not cut.is_embedding else Replicate()
    gives: Placement = Shard(-1) if cut.kind == "columns" else Replicate()

    def partition(_: str, layer: nn.Module, mesh: DeviceMesh) -> None:
        for name, whole in [*layer.named_parameters(recurse=False)]:
            if whole not in known:
                is_cut = name == "weight" or cut.cuts_bias
                dim = cut.dim if name == "weight" else 0
                known[whole] = _part(whole, Shard(dim) if is_cut else Replicate(), cut.packed * is_cut, mesh)
            layer.register_parameter(name, known[whole])

    def arriving(_: nn.Module, inputs: Any, mesh: DeviceMesh) -> Any:
        value, *rest = inputs
        return DTensor.from_local(value, mesh, [takes], run_check=False), *rest

    def leaving(_: nn.Module, output: Any, mesh: DeviceMesh) -> Any:
        return output.redistribute(placements=[gives]).to_local()

    distribute_module(module, device_mesh, partition, arriving, leaving)


def _part(whole: nn.Parameter, placement: Placement, packed: int, device_mesh: DeviceMesh) -> nn.Parameter:
    part = nn.Parameter(_cut(whole.detach(), packed, device_mesh, placement), requires_grad=whole.requires_grad)
    if packed > 1:
        setattr(part, PACKED, packed)
    if part.requires_grad:
        part.register_hook(partial(_as_cut, [placement]))
    return part


def _as_cut(placements: list[Placement], gradient: Any) -> Any:
    """A gradient in parts as its parameter is: torch gives each process the whole one of an embedding's rows."""
    return gradient if gradient.placements == tuple(placements) else gradient.redistribute(placements=placements)


def _cut(whole: torch.Tensor, packed: int, device_mesh: DeviceMesh, placement: Placement) -> DTensor:
    """Every process has the whole, so that nothing is sent; its part has memory of its own."""
    size = device_mesh.size()
    ordered = reordered(whole, packed, size) if packed > 1 else whole
    if isinstance(placement, Shard):
        ordered = ordered.chunk(size, placement.dim)[device_mesh.get_local_rank()]
    own = ordered.clone(memory_format=torch.contiguous_format)
    part: DTensor = DTensor.from_local(own, device_mesh, [placement], run_check=False)
    return part


def reordered(whole: torch.Tensor, packed: int, size: int) -> torch.Tensor:
    """The rows of ``packed`` layers in one, in the order of ``size`` processes."""
    return whole.unflatten(0, (packed, size, -1)).transpose(0, 1).flatten(0, 2).contiguous()


def whole_of(part: Any, like: torch.Tensor) -> torch.Tensor:
    """The whole of what was cut as ``like`` is, on every process of the stage; all call this at the same moment."""
    packed: int = getattr(like, PACKED, 1)
    found: torch.Tensor = part.detach().full_tensor()
    return reordered(found, part.device_mesh.size(), packed) if packed > 1 else found


def part_of(value: torch.Tensor, like: Any) -> torch.Tensor:
    """What a process has of ``value``, cut as the parameter ``like`` is."""
    found: torch.Tensor = _cut(value.to(like.device), getattr(like, PACKED, 1), like.device_mesh, like.placements[0])
    return found
