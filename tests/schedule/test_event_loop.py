from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipezoo.schedule.event_loop import FEW_RANKS, Deadlock, _wavefront, _worklist, check_it_ends, run_event_loop
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.one_f_one_b import one_f_one_b
from tests.support.plain_simulation import schedules


def times(schedule, cost, lag=0.0):
    end = run_event_loop(schedule.offsets, schedule.source, cost, lag)
    return {str(action): t for action, t in zip((a for o in schedule.order for a in o), end.tolist(), strict=True)}


def test_an_action_waits_for_its_rank_and_for_its_input():
    schedule = Schedule.from_orders([["0F0", "0F1", "0B0", "0B1"], ["1F0", "1B0", "1F1", "1B1"]])
    assert times(schedule, cost=1.0) == {
        "0F0": 1, "0F1": 2, "0B0": 4, "0B1": 6,
        "1F0": 2, "1B0": 3, "1F1": 4, "1B1": 5,
    }  # fmt: skip
    assert times(schedule, cost=1.0, lag=0.5)["1F0"] == 2.5


def test_an_action_without_a_source_has_no_lag():
    schedule = Schedule.from_orders([["0F0", "0B0"]])
    assert times(schedule, cost=2.0, lag=99.0) == {"0F0": 2, "0B0": 4}


@st.composite
def plays(draw, legal=True):
    """Offsets, sources, costs and lags of a legal order, or of one with the actions of its ranks shuffled."""
    schedule = draw(schedules(pairs=False))
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    source, size = schedule.source, schedule.num_actions
    if not legal:
        order = np.concatenate([
            chance.permutation(np.arange(low, high))
            for low, high in zip(schedule.offsets[:-1], schedule.offsets[1:], strict=True)
        ])  # fmt: skip
        place = np.empty(size, dtype=np.int32)
        place[order] = np.arange(size)
        source = np.where(source[order] < 0, -1, place[source[order]]).astype(np.int32)
    return schedule.offsets, source, chance.uniform(0, 3, size), chance.uniform(0, 1, size)


@settings(deadline=None, max_examples=200)
@given(plays())
def test_both_walks_give_equal_times_to_the_last_bit(case):
    assert _worklist(*case).tobytes() == _wavefront(*case).tobytes()


def walk(function, *arguments):
    try:
        function(*arguments)
    except Deadlock as stuck:
        return stuck.heads
    return "done"


@settings(deadline=None, max_examples=300)
@given(plays(legal=False))
def test_all_walks_get_stuck_at_the_same_actions(case):
    offsets, source, cost, lag = case
    stuck = walk(_worklist, offsets, source, cost, lag)
    assert walk(_wavefront, offsets, source, cost, lag) == stuck
    rank = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)).astype(np.int32)
    assert walk(check_it_ends, offsets, source, rank) == stuck
    wide = FEW_RANKS  # the same ranks and as many more that do nothing: run_through takes its other way
    padded = np.concatenate([offsets, np.full(wide, offsets[-1])])
    expected = stuck if stuck == "done" else stuck + [-1] * wide
    assert walk(check_it_ends, padded, source, rank) == expected


def test_stuck_names_the_head_of_every_rank_that_waits():
    offsets, source = np.array([0, 2, 4, 5]), np.array([3, -1, 1, -1, -1], dtype=np.int32)
    for function in (_worklist, _wavefront):
        with pytest.raises(Deadlock) as stuck:
            function(offsets, source, np.ones(5), np.zeros(5))
        assert stuck.value.heads == [0, 2, -1]


@pytest.mark.parametrize("num_ranks", [2, FEW_RANKS - 1, FEW_RANKS, 80])
def test_1f1b_takes_the_time_of_its_formula_on_few_and_many_ranks(num_ranks):
    schedule = one_f_one_b(num_ranks, 2 * num_ranks)
    cost = np.where(schedule.op == 0, 1.0, 2.0)
    assert run_event_loop(schedule.offsets, schedule.source, cost).max() == 3 * (2 * num_ranks + num_ranks - 1)
