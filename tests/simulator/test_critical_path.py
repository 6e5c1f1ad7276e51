from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given

from pipezoo.costs.unit import unit
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.gpipe import gpipe
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import simulate
from tests.support.plain_simulation import cases

STAGE = {"F": 1, "B": 2, "I": 1, "W": 1}
ORDER = Schedule.from_orders([["0F0", "0F1", "0B0", "0B1"], ["1F0", "1B0", "1F1", "1B1"]])


def steps(cost):
    return [(str(step.action), step.waited_for) for step in simulate(ORDER, cost).critical_path.steps]


def test_it_names_for_every_action_what_it_waited_for():
    assert steps(Cost.from_dict({"stages": [STAGE, STAGE]})) == [
        ("0F0", "nothing"),
        ("1F0", "message"),
        ("1B0", "rank"),
        ("1F1", "rank"),
        ("1B1", "rank"),
        ("0B1", "message"),
    ]


def test_its_legs_say_on_which_rank_it_stays_how_long():
    path = simulate(ORDER, Cost.from_dict({"stages": [STAGE, STAGE]})).critical_path

    assert [(leg.rank, str(leg.first), str(leg.last), leg.num_actions, leg.compute) for leg in path.legs()] == [
        (0, "0F0", "0F0", 1, 1),
        (1, "1F0", "1B1", 4, 6),
        (0, "0B1", "0B1", 1, 2),
    ]
    assert path.summary()["num_legs"] == 3
    assert path.summary()["legs"] == ["rank 0: 0F0", "rank 1: 1F0 .. 1B1, 4 actions", "rank 0: 0B1"]


def test_of_a_long_path_the_summary_lists_both_ends():
    long = simulate(gpipe(20, 2), unit(20, 1)).critical_path

    assert len(long.legs()) == 39
    summary = long.summary()
    assert (summary["num_legs"], len(summary["legs"])) == (39, 24)
    assert summary["legs"][11:13] == ["rank 11: 11F0", "rank 11: 11B0"]


def test_a_slow_hop_puts_the_path_on_the_messages():
    slow = Cost.from_dict({"stages": [STAGE, STAGE], "p2p": {"latency": 10}})
    path = simulate(ORDER, slow).critical_path

    assert steps(slow)[-1] == ("0B1", "message")
    assert path.summary()["num_messages"] == 2
    assert path.summary()["message_seconds"] == 20
    assert path.summary()["compute_seconds"] == 9
    assert path.summary()["compute_seconds_by_op"] == {"B": 6, "F": 3}
    assert path.summary()["compute_seconds_by_rank"] == {"0": 3, "1": 6}


def test_a_slow_stage_puts_the_path_on_its_rank():
    slow = Cost.from_dict({"stages": [STAGE, {"F": 50, "B": 50}]})

    assert steps(slow)[1:-1] == [("1F0", "message"), ("1B0", "rank"), ("1F1", "rank"), ("1B1", "rank")]


@given(cases())
def test_it_leads_without_a_gap_from_the_first_start_to_the_last_end(case):
    simulation = simulate(*case)
    path = simulation.critical_path.steps

    assert path[0].start - path[0].waited == 0
    assert path[-1].end == simulation.makespan
    assert all(later.start == earlier.end + later.waited for earlier, later in pairwise(path))


@given(cases())
def test_what_it_takes_is_what_it_computes_and_waits_for(case):
    simulation = simulate(*case)
    path = simulation.critical_path.steps

    assert sum(step.end - step.start + step.waited for step in path) == pytest.approx(simulation.makespan)
