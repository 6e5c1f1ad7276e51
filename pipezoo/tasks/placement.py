"""What a simulation makes of ``topology=`` and ``mesh=``: each pipeline of the grid where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.experiment.experiment import Experiment
from pipezoo.results.units import count, time_text
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import Simulation, simulate
from pipezoo.tasks.measure_costs import CostOf
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
        for name, group, seconds, when, key in (
            ("shards", self.placement.shards, self._shards(), "in the longest F", "tp_bytes"),
            ("replicas", self.placement.replicas, self._replicas(), "once a step", "grad_bytes"),
        ):
            if group.size > 1:
                takes = f"{time_text(seconds)} {when}" if seconds else f"no time, as cost.stages.{key}=0"
                lines.append(f"{name:<9} {group}: adding up takes {takes}")
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
    with _refused():
        placement = Placement(experiment.topology, grid_of(experiment, schedule.num_ranks))
        played = [(simulate(schedule, placed_cost(cost, placement, route)), route) for route in placement.routes]
    simulation, route = max(played, key=lambda pair: pair[0].step)
    return Placed(placement, route, simulation, cost)


def placed_costs(experiment: Experiment, cost_of: CostOf, num_ranks: int) -> CostOf:
    """``cost_of`` where the processes stand: of the pipeline whose messages go farthest. Itself without a topology."""
    if experiment.topology is None:
        return cost_of
    with _refused():
        placement = Placement(experiment.topology, grid_of(experiment, num_ranks))
        route = max(placement.routes, key=lambda one: one.distance)

    def placed(num_stages: int, stages_per_rank: int, num_microbatches: int) -> Cost:
        found = cost_of(num_stages, stages_per_rank, num_microbatches).for_stages(num_stages)
        with _refused():
            return placed_cost(found, placement, route)

    return placed


@contextmanager
def _refused() -> Iterator[None]:
    """What a topology refuses, under its key."""
    try:
        yield
    except ArgumentError as error:
        key = error.argument if error.argument == "topology" else f"topology.{error.argument}"
        raise ConfigError(error.at(key), error) from error


def grid_of(experiment: Experiment, num_ranks: int) -> Grid:
    """The processes of a run: ranks of the pipeline, and what ``mesh`` puts beside them."""
    mesh = experiment.mesh
    return Grid(num_ranks, mesh.dp, mesh.tp, mesh.order)


def _group(group: Group, seconds: float) -> dict[str, Any]:
    return {"size": group.size, "nodes": group.nodes, "per_node": group.per_node, "seconds": seconds}
