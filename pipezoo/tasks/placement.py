"""What a simulation makes of ``topology=`` and ``mesh=``: each pipeline of the grid where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.experiment.experiment import Experiment
from pipezoo.results.units import count, time_text
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import Simulation, simulate
from pipezoo.topology.collectives import all_reduce_seconds
from pipezoo.topology.placed_cost import placed_cost
from pipezoo.topology.placement import Grid, Group, Placement, Route


@dataclass(frozen=True)
class Placed:
    """The slowest pipeline of a placement, and what was found out of the others.

    Args:
        placement: the grid on its topology.
        route: of the slowest pipeline.
        simulation: of it.
        cost: without what the placement adds.
    """

    placement: Placement
    route: Route
    simulation: Simulation
    cost: Cost

    @property
    def messages(self) -> dict[str, int]:
        """Of the slowest pipeline: how many messages between neighbouring stages use each class of link."""
        return dict(self.route.classes(self.simulation.schedule.stage_to_rank))

    def lines(self) -> list[str]:
        """What a person is told of it."""
        grid, routes = self.placement.grid, self.placement.routes
        sizes = f"{grid.pp} ranks x {count(grid.dp, 'replica')} x {count(grid.tp, 'shard')}"
        lines = [f"map       {sizes}, order [{','.join(grid.order)}]; rank.replica.shard on each GPU:"]
        lines += [f"          {line}" for line in self.placement.map_lines()]
        told = ", ".join(f"{number} {name}" for name, number in self.messages.items()) or "none leaves its GPU"
        alike = f"; {count(len(routes), 'kind')} of pipelines, this one is the slowest" if len(routes) > 1 else ""
        lines.append(f"links     of the messages between stages: {told}{alike}")
        for name, group, seconds in (
            ("shards", self.placement.shards, self._shards()),
            ("replicas", self.placement.replicas, self._replicas()),
        ):
            if group.size > 1:
                where = "in the longest F" if name == "shards" else "once a step"
                takes = time_text(seconds) if seconds else "nothing that the cost knows of"
                lines.append(f"{name:<9} {group}: adding up takes {takes} {where}".rstrip())
        return lines

    def result(self) -> dict[str, Any]:
        """Plain numbers for ``result.json``."""
        grid = self.placement.grid
        return {
            "grid": {"pp": grid.pp, "dp": grid.dp, "tp": grid.tp},
            "order": [*grid.order],
            "messages": self.messages,
            "slowest": {"replica": self.route.replica, "shard": self.route.shard},
            "shards": _group(self.placement.shards, self._shards()),
            "replicas": _group(self.placement.replicas, self._replicas()),
        }

    def _shards(self) -> float:
        return self._longest(self.cost.tp_bytes.tolist(), self.placement.shards)

    def _replicas(self) -> float:
        return self._longest(self.cost.grad_bytes.tolist(), self.placement.replicas)

    def _longest(self, amounts: list[float], group: Group) -> float:
        return max(all_reduce_seconds(amount, group, self.placement.topology) for amount in amounts)


def place(experiment: Experiment, schedule: Schedule, cost: Cost) -> Placed | None:
    """Simulate every kind of pipeline that the grid has; None where no topology was chosen.

    Raises:
        ConfigError: there are fewer GPUs than processes, or costs in units of no machine.
    """
    if experiment.topology is None:
        return None
    cost = cost.for_stages(schedule.num_stages)
    try:
        placement = Placement(experiment.topology, grid_of(experiment, schedule.num_ranks))
        played = [(simulate(schedule, placed_cost(cost, placement, route)), route) for route in placement.routes]
    except ArgumentError as error:
        key = error.argument if error.argument == "topology" else f"topology.{error.argument}"
        raise ConfigError(error.at(key), error) from error
    simulation, route = max(played, key=lambda pair: pair[0].step)
    return Placed(placement, route, simulation, cost)


def grid_of(experiment: Experiment, num_ranks: int) -> Grid:
    """The processes of a run: ranks of the pipeline, and what ``mesh`` puts beside them."""
    mesh = getattr(experiment, "mesh", None)
    return Grid(num_ranks) if mesh is None else Grid(num_ranks, mesh.dp, mesh.tp, tuple(mesh.order))


def _group(group: Group, seconds: float) -> dict[str, Any]:
    return {"size": group.size, "nodes": group.nodes, "per_node": group.per_node, "seconds": seconds}
