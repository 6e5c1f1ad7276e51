"""Skips in a simulation: an action waits for the last of its messages."""

from __future__ import annotations

import pytest

from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.cost import P2P, Cost
from pipezoo.simulator.simulate import simulate
from pipezoo.simulator.skip_messages import SkipMessage

BYTE_A_SECOND = P2P(0.0, 1.0)


def starts(cost: Cost, ranks: int = 3, microbatches: int = 1) -> dict[str, float]:
    found = simulate(one_f_one_b(ranks, microbatches), cost)
    actions = [str(action) for order in found.schedule.order for action in order]
    return dict(zip(actions, found.start.tolist(), strict=True))


def cost(num_bytes: float, **changes: object) -> Cost:
    return Cost(F=1, B=2, p2p=BYTE_A_SECOND, skips=[SkipMessage(0, 2, num_bytes)], **changes)  # type: ignore[arg-type]


def test_a_slow_skip_is_waited_for_and_so_is_its_gradient() -> None:
    """0F0 ends at 1, its skip of 10 bytes is there at 11; 2B0 ends at 14, the gradient of the skip is there at 24."""
    assert starts(cost(10.0)) == {"0F0": 0, "1F0": 1, "2F0": 11, "2B0": 12, "1B0": 14, "0B0": 24}


def test_a_quick_one_changes_nothing() -> None:
    assert starts(cost(1.0)) == starts(cost(0.0)) == starts(Cost(F=1, B=2, p2p=BYTE_A_SECOND))


def test_the_critical_path_leads_through_it() -> None:
    path = simulate(one_f_one_b(3, 1), cost(10.0)).critical_path
    assert [str(step.action) for step in path.steps] == ["0F0", "2F0", "2B0", "0B0"]
    assert [step.waited for step in path.steps] == [0, 10, 0, 10]


def test_without_overlap_it_keeps_its_sender_busy_and_its_receiver() -> None:
    found = starts(cost(10.0, overlap=False))
    assert found["1F0"] == 1 + 10  # rank 0 sends the skip first
    assert found["2F0"] == 12  # rank 2 receives it at the same moment
    assert found["0B0"] == found["2B0"] + 2 + 10 + 2  # stage 2 sends the gradient of the skip, then stage 1 computes


def test_within_a_rank_it_takes_no_time() -> None:
    schedule = zbv(2, 4)  # stages 0 and 3 are on rank 0
    slow = Cost(F=1, I=1, W=1, p2p=BYTE_A_SECOND, skips=[SkipMessage(0, 3, 1000.0)])
    assert simulate(schedule, slow).makespan == simulate(schedule, Cost(F=1, I=1, W=1, p2p=BYTE_A_SECOND)).makespan


def test_several_skips_into_one_stage_are_all_waited_for() -> None:
    skips = [SkipMessage(0, 3, 20.0), SkipMessage(1, 3, 30.0)]
    assert starts(Cost(F=1, B=2, p2p=BYTE_A_SECOND, skips=skips), ranks=4)["3F0"] == 2 + 30


def test_they_are_read_and_written() -> None:
    made = cost(2.0).for_stages(3)
    assert made.to_dict()["skips"] == [{"from": 0, "to": 2, "bytes": 2.0}]
    assert Cost.from_dict(made.to_dict()) == made


@pytest.mark.parametrize(
    ("skips", "why"),
    [
        (3, "skips=3: must be a list of {from, to, bytes}"),
        ([{"from": 0}], r"skips\[0\]: must have the keys from, to, bytes"),
        ([{"from": 0, "to": 1, "bytes": 1}], r"skips\[0\].to=1: must be an int >= 2"),
        ([{"from": 0, "to": 2, "bytes": -1}], r"skips\[0\].bytes=-1"),
    ],
)
def test_what_is_none_is_refused(skips: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Cost.from_dict({"stages": {"F": 1, "B": 2}, "skips": skips}, 3)


def test_a_skip_to_a_stage_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"skips: goes to stage 2; valid: 0..1"):
        simulate(one_f_one_b(2, 2), cost(1.0))
