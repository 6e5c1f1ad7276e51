from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from pipezoo.costs.unit import unit
from pipezoo.schedule import event_loop as clock
from pipezoo.schedule.action import Action, Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import predict, simulate
from tests.support.plain_simulation import cases
from tests.support.plain_simulation import simulate as plainly

STAGE = {"F": 1, "B": 2, "I": 1, "W": 1, "activation_bytes": 1}
TWO_RANKS = Schedule.from_orders([["0F0", "0F1", "0B0", "0B1"], ["1F0", "1B0", "1F1", "1B1"]])


def spans(timeline):
    """{action: (start, end)}"""
    columns = (timeline.stage, timeline.op, timeline.microbatch, timeline.start, timeline.end)
    return {
        Action(int(stage), Op(int(op)), int(microbatch)): (float(start), float(end))
        for stage, op, microbatch, start, end in zip(*columns, strict=True)
    }


def named(timeline):
    return {str(action): span for action, span in spans(timeline).items()}


@pytest.mark.parametrize("few_ranks", [0, 1000], ids=["wavefront", "worklist"])
@given(case=cases())
def test_on_any_legal_order_it_is_the_plain_simulation(few_ranks, case):
    schedule, cost = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "FEW_RANKS", few_ranks)

        assert spans(simulate(schedule, cost)) == plainly(schedule, cost)


def test_an_action_starts_when_its_rank_is_free_and_its_input_has_arrived():
    cost = Cost.from_dict({"stages": [STAGE | {"output_bytes": 4}, STAGE], "p2p": {"latency": 1, "bandwidth": 8}})

    assert named(simulate(TWO_RANKS, cost)) == {
        "0F0": (0, 1),
        "0F1": (1, 2),
        "1F0": (2.5, 3.5),
        "1B0": (3.5, 5.5),
        "1F1": (5.5, 6.5),
        "1B1": (6.5, 8.5),
        "0B0": (7, 9),
        "0B1": (10, 12),
    }


def test_without_overlap_a_message_keeps_both_of_its_ranks_busy():
    cost = Cost.from_dict({"stages": [STAGE, STAGE], "p2p": {"latency": 0.5}, "overlap": False})

    assert named(simulate(TWO_RANKS, cost)) == {
        "0F0": (0, 1),  # ... sends until 1.5
        "0F1": (1.5, 2.5),  # ... sends until 3
        "1F0": (1.5, 2.5),  # received at the same time as it was sent
        "1B0": (2.5, 4.5),  # ... sends until 5
        "1F1": (5.5, 6.5),  # sent long ago, but received only now
        "1B1": (6.5, 8.5),  # ... sends until 9
        "0B0": (5, 7),
        "0B1": (9, 11),
    }


@pytest.mark.parametrize(
    ("gain", "backward", "after"),
    [(0.0, (2, 5), 5), (0.5, (1.5, 4.5), 4.5), (1.0, (1, 4), 4)],
)
def test_an_overlapped_pair_hides_a_share_of_its_shorter_half(gain, backward, after):
    schedule = Schedule.from_orders([["0F0", "(0F1;0B0)OVERLAP_F_B", "0B1"]])
    cost = Cost.from_dict({"stages": [{"F": 1, "B": 3}], "overlap_gain": gain})

    assert named(simulate(schedule, cost)) == {
        "0F0": (0, 1),
        "0F1": (1, 2),
        "0B0": backward,
        "0B1": (after, after + 3),
    }


def test_two_stages_of_one_rank_hand_over_in_no_time():
    schedule = Schedule.from_orders([["0F0", "1F0", "1B0", "0B0"]])

    assert simulate(schedule, unit(2, F=2, I=2, W=2, p2p=100)).makespan == 12


def test_messages_written_out_are_left_to_the_cost():
    written = Schedule.from_orders(
        [["0F0", "0SEND_F0", "0RECV_B0", "0B0"], ["1RECV_F0", "1F0", "1B0", "1SEND_B0"]],
    )

    assert named(simulate(written, unit(2, p2p=1))) == {"0F0": (0, 1), "1F0": (2, 3), "1B0": (3, 5), "0B0": (6, 8)}


def test_costs_of_another_number_of_stages_are_refused():
    with pytest.raises(ValueError, match="cost: it has 3 stages, but schedule 'schedule' has 2"):
        simulate(TWO_RANKS, unit(3))


def test_costs_that_know_no_halves_are_refused_for_a_schedule_that_splits():
    split = Schedule.from_orders([["0F0", "0I0", "0W0"]], "mine")

    with pytest.raises(ValueError, match=r"stages\[0\].I: is missing; schedule 'mine' splits the backward"):
        simulate(split, Cost.from_dict({"stages": [{"F": 1, "B": 2}]}))


def test_a_stage_that_never_splits_needs_no_halves():
    split = Schedule.from_orders([["0F0", "1F0", "1B0", "0I0", "0W0"]], "mine")
    cost = Cost.from_dict({"stages": [{"F": 1, "I": 1, "W": 1}, {"F": 1, "B": 2}]})

    assert simulate(split, cost).makespan == 6


def test_a_prediction_gathers_what_is_known():
    cost = Cost.from_dict({"stages": [STAGE | {"optimizer": 5}, STAGE | {"optimizer": 7}]})

    assert predict(TWO_RANKS, cost) == {
        "step_seconds": 14,  # rank 1 ends at 7 and rank 0 at 9; their optimizers take 7 and 5
        "makespan_seconds": 9,
        "bubble": {"makespan": 1 - 12 / 18, "span": 1 - 12 / 18},
        "lower_bound": {"makespan_seconds": 7, "bubble": 1 - 12 / 14},
        "gap": 12 / 14 - 12 / 18,
        "peak_memory": [2, 1],
        "critical_path": {
            "num_actions": 6,
            "compute_seconds": 9,
            "compute_seconds_by_op": {"B": 6, "F": 3},
            "compute_seconds_by_rank": {"0": 3, "1": 6},
            "num_messages": 2,
            "message_seconds": 0,
            "num_legs": 3,
            "legs": ["rank 0: 0F0", "rank 1: 1F0 .. 1B1, 4 actions", "rank 0: 0B1"],
        },
    }


def test_stages_that_cost_nothing_have_no_bubble():
    nothing = Cost.from_dict({"stages": [{"F": 0, "B": 0}] * 2})

    assert predict(TWO_RANKS, nothing)["bubble"] == {"makespan": 0, "span": 0}
    assert predict(TWO_RANKS, nothing)["lower_bound"] == {"makespan_seconds": 0, "bubble": 0}


def test_the_timeline_is_of_the_schedules_own_columns():
    timeline = simulate(TWO_RANKS, unit(2))

    assert timeline.source == "predicted"
    assert timeline.num_ranks == 2
    assert np.array_equal(timeline.rank, TWO_RANKS.rank)
