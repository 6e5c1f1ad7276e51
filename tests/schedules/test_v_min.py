from __future__ import annotations

import pytest

from pipezoo.costs.unit import unit
from pipezoo.schedules.v_half import v_half
from pipezoo.schedules.v_min import v_min
from pipezoo.simulator.simulate import predict

# makespan bubbles at equal costs
KNOWN = {
    4: {8: 0.1864, 12: 0.1325, 16: 0.1028},
    8: {16: 0.2195, 24: 0.1579, 32: 0.1233, 64: 0.0657},
}


def ones(schedule):
    return unit(schedule.num_stages, 2, F=2, I=2, W=2)


@pytest.mark.parametrize(("p", "m"), [(p, m) for p, known in KNOWN.items() for m in known])
def test_the_known_bubbles_to_four_decimals(p, m):
    schedule = v_min(p, m)
    assert round(predict(schedule, ones(schedule))["bubble"]["makespan"], 4) == KNOWN[p][m]


@pytest.mark.parametrize("p", [2, 4, 5, 7, 8, 10, 16])
@pytest.mark.parametrize("rounds", [3, 4])
def test_the_bubble_is_a_straight_line_unless_the_ranks_come_in_threes(p, rounds):
    m = rounds * p
    schedule = v_min(p, m)
    assert predict(schedule, ones(schedule))["makespan_seconds"] == 6 * m + 4 * p - 5


@pytest.mark.parametrize("p", range(1, 13))
def test_a_third_of_the_memory_of_1f1b(p):
    schedule = v_min(p, 3 * p)
    assert max(predict(schedule, ones(schedule))["peak_memory"]) <= (p + 4) // 3


def test_under_uneven_costs_it_is_far_worse_than_at_equal_ones():
    """6.2B of arXiv:2401.10241: the block has no room for backwards that take longer than weight gradients."""
    real = unit(16, 2, F=29.718, I=29.444, W=19.927, p2p=0.527)

    low, half = (predict(function(8, 24), real)["bubble"]["makespan"] for function in (v_min, v_half))

    assert low > 0.25 > half
