from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipezoo.costs.unit import unit
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.gpipe import gpipe
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.simulator.bubble_causes import CAUSES, Clocks, causes_of_run, causes_of_simulation
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import simulate
from tests.support.plain_simulation import cases

#  rank 0 |0F0|0F1|.......|--0B0--|...|--0B1--|      F takes 1, B takes 2: 9 in all, each rank idle for 3 of them,
#  rank 1 |...|1F0|--1B0--|1F1|--1B1--|.......|      and no order of this work is shorter
ORDER = Schedule.from_orders([["0F0", "0F1", "0B0", "0B1"], ["1F0", "1B0", "1F1", "1B1"]])
EVEN = Cost(F=[1, 1], B=[2, 2])
START = {"0F0": 0, "0F1": 1, "1F0": 1, "1B0": 2, "1F1": 4, "1B1": 5, "0B0": 4, "0B1": 7}
TOOK = {"F": 1, "B": 2}


def parts(causes):
    return {name: pytest.approx(share) for name, share in causes.shares().items() if abs(share) > 1e-12}


def measured(start, took=None):
    """A measured timeline of ORDER, which starts and takes as told, else as drawn above."""
    actions = [str(action) for rank in range(2) for action in ORDER.order[rank]]
    starts = np.array([float((START | start)[name]) for name in actions])
    times = np.array([float((took or {}).get(name, TOOK[name[1]])) for name in actions])
    line = simulate(ORDER, EVEN)
    return replace_times(line, starts, starts + times)


def replace_times(line, start, end):
    columns = {key: getattr(line, key) for key in ("rank", "stage", "op", "microbatch")}
    return type(line).__mro__[1](**columns, start=start, end=end, num_ranks=line.num_ranks, source="measured")


def test_what_no_order_avoids_is_fill_and_drain():
    assert parts(causes_of_simulation(simulate(ORDER, EVEN))) == {"fill_and_drain": 6 / 18}


def test_what_the_best_order_would_save_is_the_orders_part():
    causes = causes_of_simulation(simulate(one_f_one_b(4, 8), unit(4)))  # 33 units; none is below 27, with 24 of work

    assert parts(causes) == {"fill_and_drain": 3 / 33, "order": 6 / 33}


def test_what_faster_messages_would_save_is_their_part():
    causes = causes_of_simulation(simulate(ORDER, replace(EVEN, p2p=Cost(F=1, B=1, p2p=0.5).p2p)))  # 10 in all

    assert parts(causes) == {"fill_and_drain": 6 / 20, "messages": 2 / 20}


def test_what_equal_stages_would_save_is_the_part_of_uneven_ones():
    uneven = simulate(ORDER, Cost(F=[1, 1], B=[1, 3]))  # 1F0 at 1, 1B0 2-5, 1F1 5-6, 1B1 6-9, 0B1 9-10: 12 of 20 work
    causes = causes_of_simulation(uneven)

    assert uneven.makespan == 10
    assert parts(causes) == {"fill_and_drain": 6 / 20, "uneven_stages": 2 / 20}
    assert causes.by_rank()["uneven_stages"] == [pytest.approx(3 / 10), pytest.approx(-1 / 10)]


def test_a_rank_that_begins_late_though_all_is_there_dispatches():
    late = measured({"1F1": 5, "1B1": 6, "0B1": 8})

    assert parts(causes_of_run(ORDER, late)) == {"fill_and_drain": 6 / 20, "dispatch": 2 / 20}


def test_an_action_that_had_no_core_for_a_while_is_slowed():
    slow = measured({"1F1": 5, "1B1": 6, "0B0": 5, "0B1": 8}, took={"1B0": 3})  # 13 of 20 is work
    begin = slow.start.copy()
    end = begin + np.array([TOOK[str(a)[1]] for rank in range(2) for a in ORDER.order[rank]])

    causes = causes_of_run(ORDER, slow, clocks=Clocks(begin, end))
    assert parts(causes) == {"fill_and_drain": 6 / 20, "slowed": 1 / 20}


def test_emulated_stages_are_slowed_where_they_take_longer_than_told():
    slow = measured({"1F1": 5, "1B1": 6, "0B0": 5, "0B1": 8}, took={"1B0": 3})

    assert parts(causes_of_run(ORDER, slow, p2p=np.zeros(1), alone=EVEN.seconds))["slowed"] == 1 / 20


def test_where_ranks_share_cores_a_message_that_takes_longer_than_most_waited_for_a_core():
    start = {"0B1": 11}  # the messages of 1F0 and 0B0 took no time, this one 4
    own = causes_of_run(ORDER, measured(start))
    shared = causes_of_run(ORDER, measured(start), shares_cores=True)

    assert parts(own) == {"fill_and_drain": 6 / 26, "messages": 8 / 26}
    assert parts(shared) == {"fill_and_drain": 6 / 26, "slowed": 8 / 26}


def test_the_parts_of_every_rank_add_up_to_its_idle_share():
    line = simulate(gpipe(4, 4), Cost(F=[1, 2, 1, 3], B=[2, 2, 5, 1], p2p=0.25))
    by_rank = np.array(list(causes_of_simulation(line).by_rank().values()))

    assert by_rank.sum(axis=0) == pytest.approx(1 - line.busy() / line.makespan)


@given(cases(), st.integers(0, 2**32 - 1), st.booleans())
def test_the_parts_add_up_to_the_bubble_of_whatever_was_measured(case, seed, shares_cores):
    schedule, cost = case
    line = simulate(schedule, cost)
    assert sum(causes_of_simulation(line).shares().values()) == pytest.approx(line.bubble, abs=1e-9)

    noise = np.random.default_rng(seed)
    seen = simulate(schedule.compute_only(), replace(cost, overlap_gain=0.0, overlap=True))
    slow = simulate(schedule.compute_only(), replace(seen.cost, seconds=seen.cost.seconds * noise.uniform(1, 3)))
    run = replace_times(slow, slow.start, slow.end)
    clocks = Clocks(run.start, run.start + (run.end - run.start) * noise.uniform(0, 1, run.num_spans))
    for told in ({}, {"clocks": clocks}, {"alone": seen.cost.seconds}, {"p2p": np.zeros(schedule.num_stages - 1)}):
        causes = causes_of_run(schedule.compute_only(), run, shares_cores=shares_cores, **told)
        assert list(causes.shares()) == list(CAUSES)
        assert sum(causes.shares().values()) == pytest.approx(run.bubble, abs=1e-9)
