from __future__ import annotations

import pytest

from pipezoo.costs.unit import unit
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.v_half import v_half
from pipezoo.simulator.simulate import predict

# makespan bubbles at equal costs
KNOWN = {
    4: {8: 0.0943, 12: 0.0649, 16: 0.0495},
    8: {16: 0.1504, 24: 0.1056, 32: 0.0813, 64: 0.0424},
}


def ones(schedule):
    return unit(schedule.num_stages, 2, F=2, I=2, W=2)


@pytest.mark.parametrize(("p", "m"), [(p, m) for p, known in KNOWN.items() for m in known])
def test_the_known_bubbles_to_four_decimals(p, m):
    schedule = v_half(p, m)
    assert round(predict(schedule, ones(schedule))["bubble"]["makespan"], 4) == KNOWN[p][m]


@pytest.mark.parametrize("p", [4, 6, 8, 10, 16])
@pytest.mark.parametrize("rounds", [2, 4])
def test_for_even_ranks_the_bubble_is_a_straight_line(p, rounds):
    m = rounds * p
    schedule = v_half(p, m)
    assert predict(schedule, ones(schedule))["makespan_seconds"] == 6 * m + 3 * p - 7


@pytest.mark.parametrize("p", range(2, 13))
def test_half_of_the_memory_of_1f1b_and_less_of_its_bubble(p):
    m = 3 * p
    schedule, plain = v_half(p, m), one_f_one_b(p, m)

    half, full = predict(schedule, ones(schedule)), predict(plain, unit(p))

    assert max(half["peak_memory"]) == (p + 2) // 2
    assert max(full["peak_memory"]) == p
    assert half["bubble"]["makespan"] < full["bubble"]["makespan"]


def test_weight_halves_run_where_the_rank_would_wait_for_memory():
    order = [str(action) for action in v_half(1, 2).order[0]]
    assert order == ["0F0", "1F0", "1I0", "0I0", "1W0", "0F1", "0W0", "1F1", "1I1", "0I1", "1W1", "0W1"]
