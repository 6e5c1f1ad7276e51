"""What it takes to add something up over a group of processes, as rings do it.

    reduce-scatter   every process sends (n - 1) / n of the bytes      all-reduce = reduce-scatter + all-gather
    all-gather       the same

    seconds = bytes (n - 1) / n / bandwidth + latency ceil(log2 n)

A group on several nodes is as fast as its slowest part: the link in a node, or as many shares of the network as it has
processes on a node. Latency grows as in a tree, as libraries choose one for many processes. Nothing else is on the way.
"""

from __future__ import annotations

import math

from pipezoo.topology.placement import Group
from pipezoo.topology.topology import Topology


def reduce_scatter_seconds(num_bytes: float, group: Group, topology: Topology) -> float:
    """What it takes until each process of the group has its part of the sum of ``num_bytes``; 0 for a group of one."""
    if group.size == 1 or not num_bytes:
        return 0.0
    levels = topology.levels
    bandwidth = levels[0].bandwidth
    if group.level:
        bandwidth = min(bandwidth, group.per_node * levels[group.level].bandwidth)
    share = (group.size - 1) / group.size
    return num_bytes * share / bandwidth + levels[group.level].latency * math.ceil(math.log2(group.size))


def all_reduce_seconds(num_bytes: float, group: Group, topology: Topology) -> float:
    """What it takes until every process of the group has the sum of ``num_bytes``."""
    return 2 * reduce_scatter_seconds(num_bytes, group, topology)
