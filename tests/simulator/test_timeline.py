from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.timeline import Timeline


def timeline(*spans, num_ranks=2):
    """A timeline of (rank, start, end)."""
    rank, start, end = np.array(spans, dtype=float).reshape(-1, 3).T
    zeros = np.zeros(len(rank), np.int32)
    op = np.full(len(rank), Op.F, np.int8)
    return Timeline(rank.astype(np.int32), zeros, op, zeros, start, end, num_ranks, "measured")


def test_the_makespan_goes_from_the_first_start_to_the_last_end():
    assert timeline((0, 3, 4), (1, 5, 9)).makespan == 6


def test_the_makespan_bubble_is_the_idle_share_of_all_ranks():
    bubble = timeline((0, 0, 4), (1, 4, 8)).bubbles()

    assert bubble["makespan"] == 1 - 8 / 16


def test_the_span_bubble_counts_from_a_ranks_own_first_start_to_its_own_last_end():
    bubble = timeline((0, 0, 2), (0, 3, 5), (1, 4, 8)).bubbles()

    assert bubble["span"] == pytest.approx(1 - 8 / (2 * 5))  # the longest own span is 5, of rank 0


def test_a_rank_without_a_span_idles_all_the_time():
    few = timeline((0, 0, 4), num_ranks=2)

    assert few.busy().tolist() == [4, 0]
    assert few.bubbles() == {"makespan": 0.5, "span": 0.5}


def test_no_span_at_all_is_no_bubble():
    nothing = timeline()

    assert nothing.makespan == 0
    assert nothing.bubbles() == {"makespan": 0, "span": 0}


def test_spans_that_overlap_on_a_rank_count_once():
    assert timeline((0, 0, 4), (0, 2, 3), (0, 3, 6), (1, 0, 1)).busy().tolist() == [6, 1]


moments = st.integers(0, 20)


@given(st.lists(st.tuples(st.integers(0, 2), moments, moments), max_size=12))
def test_busy_is_every_moment_at_which_some_span_runs(rows):
    rows = [(rank, min(a, b), max(a, b)) for rank, a, b in rows]

    busy = timeline(*rows, num_ranks=3).busy().tolist()

    moments_of = [{t for rank, a, b in rows if rank == wanted for t in range(a, b)} for wanted in range(3)]
    assert busy == [len(moments) for moments in moments_of]


def test_shifted_starts_at_zero():
    assert timeline((0, 3, 4), (1, 5, 9)).shifted().start.tolist() == [0, 2]


def test_it_takes_its_columns_from_the_schedule():
    schedule = Schedule.from_orders([["0F0", "0B0"], ["1F0", "1B0"]])
    start = np.arange(4.0)

    predicted = Timeline.of(schedule, start, start + 1, "predicted")

    assert predicted.rank.tolist() == [0, 0, 1, 1]
    assert predicted.op.tolist() == [Op.F, Op.B, Op.F, Op.B]
    assert predicted.source == "predicted"
