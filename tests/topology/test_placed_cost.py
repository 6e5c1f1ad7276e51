from __future__ import annotations

import pytest

from pipezoo.errors import ArgumentError
from pipezoo.schedules import generators
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.p2p import P2P
from pipezoo.simulator.simulate import simulate
from pipezoo.topology.placed_cost import placed_cost
from pipezoo.topology.placement import Grid, Placement
from pipezoo.topology.topology import Topology

NEAR, FAR = P2P(0.1, 100.0), P2P(0.5, 10.0)


def test_a_message_takes_what_its_link_takes():
    placement = Placement(Topology(2, NEAR, FAR), Grid(4))
    cost = placed_cost(Cost(F=[1.0] * 4, B=[2.0] * 4, output_bytes=10.0), placement, placement.routes[0])
    assert cost.p2p_seconds([0, 1, 2, 3]).tolist() == pytest.approx([0.2, 1.5, 0.2])


def test_a_step_is_as_long_as_it_is_by_hand():
    placement = Placement(Topology(1, NEAR, FAR), Grid(2))
    cost = placed_cost(Cost(F=[1.0] * 2, B=[2.0] * 2), placement, placement.routes[0])
    assert simulate(generators()["gpipe"](2, 1, 1), cost).step == pytest.approx(1 + 0.5 + 1 + 2 + 0.5 + 2)


def test_shards_slow_every_action_and_replicas_the_end_of_the_step():
    placement = Placement(Topology(4, NEAR, FAR), Grid(1, 2, 4))  # shards in a node, replicas on two
    cost = Cost(F=[1.0], I=[1.0], W=[1.0], tp_bytes=100.0, grad_bytes=10.0)
    placed = placed_cost(cost, placement, placement.routes[0])
    shards, replicas = 2 * (100 * 3 / 4 / 100 + 0.2), 2 * (10 / 2 / 10 + 0.5)
    assert placed.seconds[0].tolist() == pytest.approx([1 + shards, 2 + shards, 1 + shards, 1.0])
    assert placed.optimizer.tolist() == pytest.approx([replicas])


def test_the_order_of_the_grid_decides_what_is_slow():
    cost = Cost(F=[1.0] * 4, B=[2.0] * 4, output_bytes=10.0, grad_bytes=1000.0)
    schedule = generators()["one_f_one_b"](4, 8, 1)
    steps = {}
    for order in (("pp", "dp", "tp"), ("dp", "pp", "tp")):
        placement = Placement(Topology(4, NEAR, FAR), Grid(4, 4, 1, order))
        steps[order[0]] = simulate(schedule, placed_cost(cost, placement, placement.routes[0])).step
    near, far = 2 * (1000 * 3 / 4 / 100 + 0.2), 2 * (1000 * 3 / 4 / 10 + 1.0)
    assert steps["dp"] - steps["pp"] > 0.5 * (far - near)  # replicas far apart cost more here than messages


def test_costs_of_no_machine_are_refused():
    placement = Placement(Topology(4, NEAR, FAR), Grid(1))
    with pytest.raises(ArgumentError, match="units of no machine; valid: cost=table"):
        placed_cost(Cost(F=[1.0], B=[2.0], unit="unit"), placement, placement.routes[0])
