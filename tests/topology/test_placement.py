from __future__ import annotations

from itertools import permutations, product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipezoo.errors import ArgumentError
from pipezoo.simulator.p2p import P2P
from pipezoo.topology.placement import AXES, Grid, Group, Placement
from pipezoo.topology.topology import Topology

NEAR, FAR, FARTHER = P2P(1e-6, 100.0), P2P(2e-6, 10.0), P2P(3e-6, 1.0)


def topology(gpus: int = 4, **more: object) -> Topology:
    return Topology(gpus, NEAR, FAR, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("order", "lines"),
    [
        ("pp dp tp", ["0.0.0 0.0.1 0.1.0 0.1.1", "1.0.0 1.0.1 1.1.0 1.1.1"]),
        ("dp pp tp", ["0.0.0 0.0.1 1.0.0 1.0.1", "0.1.0 0.1.1 1.1.0 1.1.1"]),
        ("tp dp pp", ["0.0.0 1.0.0 0.1.0 1.1.0", "0.0.1 1.0.1 0.1.1 1.1.1"]),
    ],
)
def test_the_last_name_of_an_order_is_nearest(order, lines):
    placement = Placement(topology(), Grid(2, 2, 2, tuple(order.split())))
    assert [line.split(maxsplit=2)[2] for line in placement.map_lines()] == lines


@pytest.mark.parametrize(
    ("order", "messages", "shards", "replicas"),
    [
        ("pp dp tp", {"between nodes": 1}, Group(2, 1, 2, 0), Group(2, 1, 2, 0)),
        ("dp pp tp", {"in node": 1}, Group(2, 1, 2, 0), Group(2, 2, 1, 1)),
        ("tp dp pp", {"in node": 1}, Group(2, 2, 1, 1), Group(2, 1, 2, 0)),
    ],
)
def test_an_order_says_who_talks_over_the_network(order, messages, shards, replicas):
    placement = Placement(topology(), Grid(2, 2, 2, tuple(order.split())))
    assert [route.classes([0, 1]) for route in placement.routes] == [messages]
    assert placement.shards == shards
    assert placement.replicas == replicas


def test_pipelines_that_stand_differently_are_told_apart_and_counted():
    placement = Placement(topology(3), Grid(2, 2, 1, ("dp", "pp", "tp")))  # nodes: 0 1 2 | 3
    assert [(route.replica, route.count, dict(route.classes([0, 1]))) for route in placement.routes] == [
        (0, 1, {"in node": 1}),
        (1, 1, {"between nodes": 1}),
    ]


def test_racks_are_a_class_of_their_own():
    racks = topology(1, nodes_per_rack=2, between_racks=FARTHER)
    (route,) = Placement(racks, Grid(4)).routes
    assert dict(route.classes([0, 1, 2, 3])) == {"between nodes": 2, "between racks": 1}
    assert Placement(racks, Grid(1, 4)).replicas == Group(4, 4, 1, 2)


def test_two_stages_of_one_rank_use_no_link():
    (route,) = Placement(topology(), Grid(2)).routes
    assert dict(route.classes([0, 1, 1, 0])) == {"in node": 2}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.sampled_from([*permutations(AXES)]), st.integers(1, 5)
)
def test_every_process_stands_on_one_gpu_and_every_pipeline_is_counted_once(pp, dp, tp, order, gpus):
    grid = Grid(pp, dp, tp, order)
    placement = Placement(topology(gpus), grid)
    assert sorted(grid.processes.ravel().tolist()) == [*range(grid.size)]
    assert sum(route.count for route in placement.routes) == dp * tp
    for process in (grid.processes[place] for place in product(range(pp), range(dp), range(tp))):
        assert placement.topology.node(int(process)) == process // gpus
    assert placement.replicas.nodes * placement.replicas.per_node <= max(dp, placement.replicas.nodes)


def test_a_grid_that_does_not_fit_is_refused_with_what_would():
    with pytest.raises(ArgumentError, match=r"nodes=2: 9 processes need more than 2 x 4 = 8 GPUs; valid: >= 3"):
        Placement(topology(nodes=2), Grid(9))


def test_an_order_names_each_once():
    with pytest.raises(ArgumentError, match="must name each of pp, dp and tp once"):
        Grid(2, order=("pp", "dp", "dp"))
