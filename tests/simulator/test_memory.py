from __future__ import annotations

import pytest
from hypothesis import given

from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.memory import locked, memory_over_time, peak_memory
from pipezoo.simulator.simulate import simulate
from tests.support.plain_simulation import cases, memory

STAGE = {"F": 1, "B": 2, "I": 1, "W": 1, "activation_bytes": 10, "freed_by_input_grad": 4}


@given(cases())
def test_on_any_legal_order_it_is_what_counting_by_hand_gives(case):
    schedule, cost = case

    during, _ = locked(schedule, cost)
    by_hand = memory(schedule, cost)

    assert during.tolist() == [level for levels in by_hand for level in levels]
    assert peak_memory(schedule, cost).tolist() == [max(levels) for levels in by_hand]


@pytest.mark.parametrize(
    ("order", "during", "after"),
    [
        (["0F0", "0F1", "0B0", "0B1"], [10, 20, 20, 10], [10, 20, 10, 0]),
        (["0F0", "0I0", "0F1", "0W0", "0I1", "0W1"], [10, 10, 16, 16, 10, 6], [10, 6, 16, 10, 6, 0]),
        (["0F0", "(0F1;0B0)OVERLAP_F_B", "0B1"], [10, 20, 20, 10], [10, 20, 10, 0]),
        (["0F0", "(0B0;0F1)OVERLAP_F_B", "0B1"], [10, 20, 10, 10], [10, 0, 10, 0]),
    ],
    ids=["full backward", "split backward", "overlapped pair", "overlapped pair, backward first"],
)
def test_f_adds_what_its_stage_keeps_and_the_backward_frees_it(order, during, after):
    levels = locked(Schedule.from_orders([order]), Cost.from_dict({"stages": [STAGE]}))

    assert [level.tolist() for level in levels] == [during, after]


def test_over_time_a_rank_holds_from_the_start_of_f_to_the_end_of_its_backward():
    schedule = Schedule.from_orders([["0F0", "0F1", "0B0", "0B1"], ["1F0", "1B0", "1F1", "1B1"]])
    cost = Cost.from_dict({"stages": [STAGE, STAGE | {"activation_bytes": 3, "freed_by_input_grad": 0}]})

    first, second = memory_over_time(schedule, cost, simulate(schedule, cost))

    assert [column.tolist() for column in first] == [[0, 1, 6, 9], [10, 20, 10, 0]]
    assert [column.tolist() for column in second] == [[1, 4, 4, 7], [3, 0, 3, 0]]


@given(cases())
def test_over_time_the_peak_is_the_peak_and_the_end_is_empty(case):
    schedule, cost = case

    steps = memory_over_time(schedule, cost, simulate(schedule, cost))

    assert [max(levels) for _, levels in steps] == peak_memory(schedule, cost).tolist()
    assert [levels[-1] for _, levels in steps] == [0] * schedule.num_ranks
    assert all((times[1:] >= times[:-1]).all() for times, _ in steps)
