"""The costs of a pipeline where its processes stand: links by place, and sums over shards and replicas as time.

F, B, I    + what adding up ``tp_bytes`` over the shards of a stage takes
optimizer  + what adding up ``grad_bytes`` over the replicas takes, once a batch
messages     by how far their two ranks are apart
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipezoo.errors import MISSING, ArgumentError
from pipezoo.schedule.action import Op
from pipezoo.simulator.cost import Cost
from pipezoo.topology.collectives import all_reduce_seconds
from pipezoo.topology.placement import Placement, Route


def placed_cost(cost: Cost, placement: Placement, route: Route) -> Cost:
    """``cost`` for one of the pipelines of a placement.

    Raises:
        ArgumentError: the costs are of no machine (``unit: unit``), so that bytes and seconds mean nothing beside them.
    """
    if cost.unit != "s":
        why = "has links in seconds and bytes per second, and these costs are in units of no machine"
        raise ArgumentError("topology", MISSING, why, "cost=table, cost=file, cost=measured")
    seconds = cost.seconds.copy()
    seconds[cost.full_backward_is_derived, Op.B] = np.nan
    extra = np.array([_sum(each, placement) for each in cost.tp_bytes.tolist()])
    for op in (Op.F, Op.B, Op.I):
        seconds[:, op] += extra
    once = [all_reduce_seconds(each, placement.replicas, placement.topology) for each in cost.grad_bytes.tolist()]
    return replace(cost, seconds=seconds, optimizer=cost.optimizer + np.array(once), links=route.links)


def _sum(num_bytes: float, placement: Placement) -> float:
    return all_reduce_seconds(num_bytes, placement.shards, placement.topology)
