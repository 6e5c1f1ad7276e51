"""Tied parameters: one tensor of the model that stages on different ranks hold.

model      embed.weight is head.weight
rank 0     embed.weight   gradient g0 ┐ summed over the ranks that hold it, before the optimizer:
rank 3     head.weight    gradient g3 ┘ both then hold g0 + g3, and stay equal for ever
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.distributed as dist
from torch import nn

from pipezoo.launch.mesh import Mesh, Place
from pipezoo.runtime.mesh import gathered
from pipezoo.runtime.microbatching import total
from pipezoo.runtime.whole import is_shared, local, zeros_of


@dataclass(frozen=True)
class TiedParameter:
    """One tied parameter: its name in the unsplit model, the ranks that hold it, and their process group."""

    name: str
    ranks: tuple[int, ...]
    group: dist.ProcessGroup | None = None


def find_tied_parameters(
    parameters: Sequence[dict[str, nn.Parameter]], stage_to_rank: Sequence[int]
) -> list[TiedParameter]:
    """The parameters that more than one rank holds.

    Args:
        parameters: for each stage, its parameters by their names in the unsplit model.
        stage_to_rank: where each stage is.
    """
    holders: dict[str, set[int]] = {}
    for stage, named in enumerate(parameters):
        for name in (name for name, parameter in named.items() if parameter.requires_grad):
            holders.setdefault(name, set()).add(stage_to_rank[stage])
    return [TiedParameter(name, tuple(sorted(ranks))) for name, ranks in sorted(holders.items()) if len(ranks) > 1]


def join(tied_parameters: Sequence[TiedParameter], mesh: Mesh, pp: int, place: Place) -> list[TiedParameter]:
    """The same ties with a process group each, in each replica of its own; every process of the run must call this.

    Args:
        mesh: of the processes.
        pp: processes of one replica.
        place: of this process.
    """
    groups: dict[tuple[int, ...], dist.ProcessGroup] = {}
    for tied in tied_parameters:
        if tied.ranks in groups:
            continue
        for dp, tp in product(range(mesh.dp), range(mesh.tp)):
            group = dist.new_group([mesh.process(Place(rank, dp, tp), pp) for rank in tied.ranks])
            if (dp, tp) == place[1:]:
                groups[tied.ranks] = group
    return [TiedParameter(tied.name, tied.ranks, groups[tied.ranks]) for tied in tied_parameters]


def sum_tied_gradients(
    tied_parameters: Sequence[TiedParameter], parameters: dict[str, nn.Parameter], rank: int
) -> None:
    """Replace the gradient of each tied parameter that this rank holds by the sum over its holders.

    A holder whose stage did not use the parameter contributes zeros; where nobody used it, it has no gradient. The
    shares are added in the order of the ranks, so that the sum has the same bits on each of them.
    """
    for tied in tied_parameters:
        if rank in tied.ranks:
            parameter = parameters[tied.name]
            used = torch.tensor([parameter.grad is not None], dtype=torch.uint8, device=parameter.device)
            if not any(gathered(used, tied.group)):
                continue
            share = zeros_of(parameter) if parameter.grad is None else parameter.grad.detach()
            sum_of_all = total(gathered(local(share).contiguous(), tied.group))
            if is_shared(parameter):
                local(share).copy_(sum_of_all)
            parameter.grad = share if is_shared(parameter) else sum_of_all
