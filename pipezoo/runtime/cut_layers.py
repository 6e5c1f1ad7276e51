"""One layer, cut over the processes of a stage: parameters become DTensors, and hooks say what goes in and comes out.

    columns    whole x ──► x W_r' + b_r ──► part r             rows    part r ──► sum over r of x_r W_r' ──► whole y

Imports torch's DTensor, which takes its time: only where a stage is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_module

from pipezoo.runtime.tensor_parallel import Cut, Cuts
from pipezoo.runtime.whole import PACKED, cut_tensor


def cut_stages(cuts: Cuts, stages: Sequence[nn.Module], device_mesh: DeviceMesh) -> None:
    """Have the layers of stages, which one process holds, keep its part of their parameters.

    Args:
        device_mesh: of one dimension, the processes that share these stages.
    """
    known: dict[nn.Parameter, nn.Parameter] = {}
    for stage in stages:
        for module, cut in cuts.of_stage(stage):
            cut_layer(module, cut, device_mesh, known)
    for parameter in dict.fromkeys(p for stage in stages for p in cuts.working_on_parts(stage)):
        if parameter.requires_grad:
            parameter.register_hook(partial(_added_up, device_mesh.get_group()))


def _added_up(group: dist.ProcessGroup, gradient: torch.Tensor) -> torch.Tensor:
    """The gradient of a whole parameter, of which each process has that of its part."""
    found = gradient.clone()
    dist.all_reduce(found, group=group)
    return found


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
    part = nn.Parameter(cut_tensor(whole.detach(), packed, device_mesh, [placement]), requires_grad=whole.requires_grad)
    if packed > 1:
        setattr(part, PACKED, packed)
    if part.requires_grad:
        part.register_hook(partial(_as_cut, [placement]))
    return part


def _as_cut(placements: list[Placement], gradient: Any) -> Any:
    """A gradient in parts as its parameter is: torch gives each process the whole one of an embedding's rows."""
    return gradient if gradient.placements == tuple(placements) else gradient.redistribute(placements=placements)
