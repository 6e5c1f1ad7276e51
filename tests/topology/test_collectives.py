from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipezoo.simulator.p2p import P2P
from pipezoo.topology.collectives import all_reduce_seconds, reduce_scatter_seconds
from pipezoo.topology.placement import Group
from pipezoo.topology.topology import Topology

TOPOLOGY = Topology(8, P2P(1e-6, 400.0), P2P(2e-6, 50.0))


@pytest.mark.parametrize(
    ("group", "seconds"),
    [
        (Group(1, 1, 1, 0), 0.0),
        (Group(2, 1, 2, 0), 1000 / 2 / 400 + 1e-6),  # half of the bytes, one step
        (Group(8, 1, 8, 0), 1000 * 7 / 8 / 400 + 3e-6),
        (Group(4, 4, 1, 1), 1000 * 3 / 4 / 50 + 4e-6),  # one share of the network
        (Group(16, 4, 4, 1), 1000 * 15 / 16 / 200 + 8e-6),  # four shares
        (Group(32, 2, 16, 1), 1000 * 31 / 32 / 400 + 10e-6),  # more network than link in the node
    ],
)
def test_a_ring_is_as_fast_as_its_slowest_part(group, seconds):
    assert reduce_scatter_seconds(1000, group, TOPOLOGY) == pytest.approx(seconds)
    assert all_reduce_seconds(1000, group, TOPOLOGY) == pytest.approx(2 * seconds)


def test_nothing_takes_no_time():
    assert all_reduce_seconds(0.0, Group(16, 4, 4, 1), TOPOLOGY) == 0.0


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 512), st.integers(1, 8), st.floats(1, 1e9))
def test_a_group_that_is_spread_thinner_is_never_faster(size, per_node, num_bytes):
    near, far = (Group(size, 2, count, 1) for count in (per_node + 1, per_node))
    assert reduce_scatter_seconds(num_bytes, near, TOPOLOGY) <= reduce_scatter_seconds(num_bytes, far, TOPOLOGY)
