"""The process groups of a grid: the pipeline that a process is in, and its counterparts in other replicas.

    pp=2 dp=2        replica 0    replica 1
        rank 0          0 ─────────── 1           replicas of rank 0: 0 and 1 add up their gradients
        rank 1          2 ─────────── 3           pipeline of replica 0: 0 and 2 send each other microbatches

Made by torch's DeviceMesh. In a plain mesh all processes are one pipeline: that is the default group, and nothing is
made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from pipezoo.launch.mesh import Mesh, Place


@dataclass(frozen=True)
class Groups:
    """What a process has to do with which others. Members of a group stand in the order of their coordinate.

    Args:
        place: of this process.
        pipeline: the ranks of its replica; None: the default group.
        replicas: those that hold the same stages; None: it holds them alone.
        shards: those that share every stage with it; None: it shares them with nobody.
        device_mesh: torch's own, its dimensions named pp, dp and tp; None in a plain mesh.
    """

    place: Place
    pipeline: dist.ProcessGroup | None = None
    replicas: dist.ProcessGroup | None = None
    shards: dist.ProcessGroup | None = None
    device_mesh: DeviceMesh | None = None


ALONE = Groups(Place(0))  # of a process that is a pipeline by itself


def groups_of(mesh: Mesh, pp: int, process: int, device: torch.device) -> Groups:
    """Make them; every process of the run calls this at the same moment, after it has joined the others.

    Args:
        mesh: of the processes.
        pp: processes of one replica.
    """
    place = mesh.place(process, pp)
    if mesh.is_plain:
        return Groups(place)
    device_mesh = init_device_mesh(device.type, mesh.shape(pp), mesh_dim_names=mesh.order)
    return Groups(
        place,
        device_mesh.get_group("pp"),
        device_mesh.get_group("dp") if mesh.dp > 1 else None,
        device_mesh.get_group("tp") if mesh.tp > 1 else None,
        device_mesh,
    )


def gathered(tensor: torch.Tensor, group: dist.ProcessGroup | None) -> list[torch.Tensor]:
    """What each member of a group has, in their order."""
    found = [torch.empty_like(tensor) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, tensor, group=group)
    return found
