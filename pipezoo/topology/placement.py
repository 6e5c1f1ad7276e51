"""The processes of a grid on the GPUs of a topology: who shares a node with whom.

pp=2 dp=2 tp=2, order [pp, dp, tp], nodes of 4             order [dp, pp, tp]

node 0   0.0.0 0.0.1 0.1.0 0.1.1   rank.replica.shard      0.0.0 0.0.1 1.0.0 1.0.1
node 1   1.0.0 1.0.1 1.1.0 1.1.1                           0.1.0 0.1.1 1.1.0 1.1.1

every message of the pipeline crosses; replicas are near   no message crosses; replicas are far apart
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipezoo.errors import ArgumentError
from pipezoo.simulator.p2p import Links
from pipezoo.topology.topology import CLASSES, Topology
from pipezoo.validators import check_int

AXES = ("pp", "dp", "tp")
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """``pp`` ranks of a pipeline, ``dp`` replicas of it, ``tp`` processes of each stage; ``order`` is outermost first.

    Raises:
        ArgumentError: a count below 1, or an order that does not name each once.
    """

    pp: int
    dp: int = 1
    tp: int = 1
    order: tuple[str, ...] = AXES

    def __post_init__(self) -> None:
        for name in AXES:
            check_int(name, getattr(self, name), 1)
        if sorted(self.order) != sorted(AXES):
            raise ArgumentError(
                "order", [*self.order], "must name each of pp, dp and tp once", "[pp,dp,tp], [dp,pp,tp]"
            )

    @property
    def size(self) -> int:
        return self.pp * self.dp * self.tp

    @cached_property
    def processes(self) -> Ints:
        """``[pp, dp, tp]``: the process at each place."""
        lengths = [getattr(self, name) for name in self.order]
        found: Ints = np.arange(self.size).reshape(lengths).transpose([self.order.index(name) for name in AXES])
        return found


@dataclass(frozen=True)
class Group:
    """The processes that add something up together, where they are farthest apart.

    Args:
        size: how many there are.
        nodes: how many nodes they are on.
        per_node: how many of them are on a node, at least.
        level: which link the farthest of them use, as an index of :data:`CLASSES`.
    """

    size: int
    nodes: int
    per_node: int
    level: int

    def __str__(self) -> str:
        where = "in one node" if self.nodes == 1 else f"on {self.nodes} nodes, {self.per_node} on each"
        return f"{self.size} processes {where}"


@dataclass(frozen=True)
class Route:
    """One pipeline of the grid, and how many stand like it.

    Args:
        links: where its ranks stand.
        replica, shard: the first such pipeline.
        count: how many of the ``dp x tp`` pipelines stand like this.
    """

    links: Links
    replica: int
    shard: int
    count: int

    @property
    def distance(self) -> int:
        """How far messages from rank to rank go, as the sum of their levels."""
        return sum(self.links.level(rank, rank + 1) for rank in range(self.links.num_ranks - 1))

    def classes(self, stage_to_rank: Sequence[int]) -> Counter[str]:
        """How many messages between neighbouring stages use which class of link; those within a rank use none."""
        pairs = [(a, b) for a, b in pairwise(stage_to_rank) if a != b]
        return Counter(CLASSES[self.links.level(a, b)] for a, b in pairs)


@dataclass(frozen=True)
class Placement:
    """A grid on a topology.

    Raises:
        ArgumentError: the topology has fewer GPUs than the grid has processes.
    """

    topology: Topology
    grid: Grid

    def __post_init__(self) -> None:
        self.topology.check_room(self.grid.size)

    @cached_property
    def nodes(self) -> Ints:
        """``[pp, dp, tp]``: the node of each process."""
        return self.grid.processes // self.topology.gpus_per_node

    @cached_property
    def shards(self) -> Group:
        """Those that share a stage."""
        return self._group(self.nodes.reshape(-1, self.grid.tp))

    @cached_property
    def replicas(self) -> Group:
        """Those that hold the same parameters."""
        return self._group(self.nodes.transpose(0, 2, 1).reshape(-1, self.grid.dp))

    def _group(self, nodes: Ints) -> Group:
        """``nodes``: ``[num_groups, size]``. The groups of a grid differ where a node holds no round number of them."""
        worst = Group(nodes.shape[1], 1, nodes.shape[1], 0)
        for row in np.unique(nodes - nodes.min(axis=1, keepdims=True), axis=0):
            _, counts = np.unique(row, return_counts=True)
            group = Group(len(row), len(counts), int(counts.min()), int(len(counts) > 1))
            if (group.nodes, -group.per_node) > (worst.nodes, -worst.per_node):
                worst = group
        if self.topology.nodes_per_rack is not None:
            racks = nodes // self.topology.nodes_per_rack
            if (racks.max(axis=1) != racks.min(axis=1)).any():
                worst = Group(worst.size, worst.nodes, worst.per_node, 2)
        return worst

    @cached_property
    def routes(self) -> list[Route]:
        """The pipelines of the grid that stand differently, the most frequent first."""
        found: dict[tuple[tuple[int, ...], ...], tuple[int, int, int]] = {}
        for replica in range(self.grid.dp):
            for shard in range(self.grid.tp):
                places = tuple(self.topology.place(int(p)) for p in self.grid.processes[:, replica, shard])
                alike = _renumbered(places)
                first = found.get(alike, (replica, shard, 0))
                found[alike] = (*first[:2], first[2] + 1)
        levels = self.topology.levels
        made = [Route(Links(levels, places), *where) for places, where in found.items()]
        return sorted(made, key=lambda route: -route.count)

    def map_lines(self, most: int = 4) -> list[str]:
        """What stands on each node, ``rank.replica.shard`` for each GPU; after ``most`` nodes, how many more."""
        order = np.argsort(self.grid.processes, axis=None)
        where = np.stack(np.unravel_index(order, self.grid.processes.shape), axis=1).tolist()
        per_node = self.topology.gpus_per_node
        count = -(-len(where) // per_node)
        lines = []
        for node in range(min(count, most)):
            cells = [".".join(map(str, place)) for place in where[node * per_node : (node + 1) * per_node]]
            lines.append(f"node {node:<4} {' '.join(cells)}")
        return lines + ([f"... {count - most} more nodes"] if count > most else [])


def _renumbered(places: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """Nodes and racks by the order in which they are first seen, so that pipelines that stand alike look alike."""
    seen: list[dict[int, int]] = [{} for _ in places[0]]
    return tuple(
        tuple(seen[level].setdefault(number, len(seen[level])) for level, number in enumerate(place))
        for place in places
    )
