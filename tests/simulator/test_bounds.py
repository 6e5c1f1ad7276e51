from __future__ import annotations

import pytest
from hypothesis import given

from pipezoo.costs.unit import unit
from pipezoo.simulator.bounds import lower_bound
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import simulate
from tests.support.plain_simulation import cases


@given(cases())
def test_no_legal_order_beats_it(case):
    schedule, cost = case

    bound = lower_bound(cost, schedule.stage_to_rank, schedule.num_microbatches)

    assert bound <= simulate(schedule, cost).makespan


@pytest.mark.parametrize("p", [1, 2, 4, 8])
@pytest.mark.parametrize("v", [1, 2, 4])
@pytest.mark.parametrize("p2p", [0.0, 0.125])
def test_with_equal_stages_it_is_the_closed_form(p, v, p2p):
    m = 3 * p
    cost = unit(p * v, v, p2p=p2p)
    in_a_loop = [stage % p for stage in range(p * v)]

    assert lower_bound(cost, in_a_loop, m) == (p - 1) * (1 / v + p2p) + 3 * m


def test_stages_in_a_v_start_as_early_as_stages_in_a_loop():
    in_a_v = [0, 1, 2, 3, 3, 2, 1, 0]

    assert lower_bound(unit(8, 2), in_a_v, 12) == 3 / 2 + 36


def test_few_microbatches_are_bounded_by_the_way_there_and_back():
    assert lower_bound(unit(8), range(8), 1) == 8 + 8 + 1  # eight F, eight I, and the last W


def test_the_slowest_rank_bounds_an_uneven_pipeline():
    even, slow = {"F": 1, "I": 1, "W": 1}, {"F": 10, "I": 10, "W": 10}

    assert lower_bound(Cost.from_dict({"stages": [even, slow, even]}), [0, 1, 2], 8) == 1 + 8 * 30


def test_a_rank_that_must_send_and_receive_by_itself_has_less_time_to_compute():
    stages = {"F": 1, "I": 1, "W": 1}
    cost = Cost.from_dict({"stages": [stages, stages], "p2p": {"latency": 1}, "overlap": False})

    assert lower_bound(cost, [0, 1], 8) == 1 + 8 * (3 + 2)
