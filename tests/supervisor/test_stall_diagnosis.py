"""Who waits for whom, told from where each rank stands."""

from __future__ import annotations

import pytest

from pipezoo.schedule.lowering import lower
from pipezoo.schedules.one_f_one_b import one_f_one_b as schedule
from pipezoo.supervisor.stall_diagnosis import (
    AFTER,
    BEFORE,
    RankStatus,
    Wait,
    as_dict,
    explain_stall,
    first_to_stall,
    waits,
)
from pipezoo.supervisor.worker_channel import Phase

ACTIONS = lower(schedule(3, 4))


def stand(rank: int, at: str | Phase, step: int = 1, seconds: float = 60.0, state: str = "running") -> RankStatus:
    place = int(at) if isinstance(at, Phase) else [str(action) for action in ACTIONS[rank]].index(at)
    return RankStatus(f"rank {rank}", ACTIONS[rank], step, place, seconds, state)


def test_a_rank_waits_for_the_one_that_has_not_sent_yet() -> None:
    statuses = [stand(0, "0F2", seconds=61.0), stand(1, "1F2"), stand(2, "2F1")]
    found = waits(statuses)
    assert {who: (wait.whom, wait.what) for who, wait in found.items()} == {1: (0, "1RECV_F2")}
    assert first_to_stall(statuses) == 0
    assert explain_stall(statuses) == (
        "rank 0 does not move (stage 0, step 1, at 0F2); rank 1 waits at 1RECV_F2 for rank 0, which is in 0F2 for 61 s"
    )


def test_a_chain_leads_to_the_one_at_its_end() -> None:
    statuses = [stand(0, "0B0"), stand(1, "1B0"), stand(2, "2F0")]
    assert {who: wait.whom for who, wait in waits(statuses).items()} == {0: 1, 1: 2}
    assert first_to_stall(statuses) == 2


def test_a_stopped_rank_is_to_blame_even_when_it_waits() -> None:
    statuses = [stand(0, "0F0"), stand(1, "1F0", state="stopped"), stand(2, "2F0")]
    assert first_to_stall(statuses) == 1
    assert explain_stall(statuses).startswith("rank 1 is stopped (stage 1, step 1, at 1F0); rank 2 waits at 2RECV_F0")


def test_a_rank_whose_machine_is_silent_is_to_blame() -> None:
    statuses = [stand(0, "0F0"), stand(1, "1B3", state="not heard of for 6 s"), stand(2, "2F0")]
    assert first_to_stall(statuses) == 1
    assert explain_stall(statuses).startswith(
        "rank 1 is not heard of for 6 s (stage 1, step 1, at 1B3); rank 2 waits at 2RECV_F0 for rank 1, which is not "
    )


def test_a_rank_of_an_earlier_step_is_behind() -> None:
    statuses = [stand(0, "0B0", step=3), stand(1, Phase.UPDATE, step=2), stand(2, Phase.UPDATE, step=2)]
    assert waits(statuses)[0].whom == 1
    assert first_to_stall(statuses) == 1


@pytest.mark.parametrize("behind", [Phase.START, Phase.BUILD])
def test_those_that_join_or_leave_wait_for_the_last(behind: Phase) -> None:
    leaving = [stand(0, Phase.LEAVE), stand(1, Phase.LEAVE), stand(2, "2B3")]
    assert {wait.whom for wait in waits(leaving).values()} == {2}
    joining = [stand(0, Phase.JOIN, 0), stand(1, Phase.START, 0), stand(2, Phase.JOIN, 0)]
    assert explain_stall(joining).startswith(
        "rank 1 does not move (starting); rank 0 waits at joining the others for rank 1, which is starting for 60 s"
    )


def test_nobody_is_to_blame_when_all_wait_for_each_other() -> None:
    crossed = [stand(0, "0B0"), stand(1, "1F0")]
    crossed[0] = RankStatus("rank 0", ACTIONS[0][1:], 1, 0, 60.0)  # its order lost a forward: not what was lowered
    backwards = [str(action) for action in ACTIONS[0]].index("0B0")
    crossed[0] = RankStatus("rank 0", [ACTIONS[0][backwards - 1], ACTIONS[0][backwards], ACTIONS[0][1]], 1, 1, 60.0)
    assert first_to_stall(crossed) is None
    assert explain_stall(crossed).startswith("all ranks wait for each other; rank 0 waits at 0RECV_B0 for rank 1")


def test_many_waiting_ranks_are_counted() -> None:
    actions = lower(schedule(8, 8))
    statuses = [RankStatus(f"rank {rank}", actions[rank], 0, 0, 9.0) for rank in range(8)]
    statuses = [
        RankStatus(s.name, s.actions, 0, [str(a) for a in s.actions].index(f"{rank}F0"), 9.0)
        for rank, s in enumerate(statuses)
    ]
    assert explain_stall(statuses).endswith("; 4 more wait")


def test_a_file_has_the_last_actions_of_everybody() -> None:
    found = as_dict([stand(0, "0F2"), stand(1, "1F2"), stand(2, Phase.BATCH)])
    assert found[0]["last_actions"] == ["0F0", "0SEND_F0", "0F1", "0SEND_F1", "0F2"]
    assert (found[1]["waits_at"], found[1]["waits_for"], found[1]["stage"]) == ("1RECV_F2", "rank 0", 1)
    assert (found[2]["at"], found[2]["last_actions"]) == ("fetching the batch", [])


def test_a_rank_that_waits_for_a_skip_says_so() -> None:
    lists = lower(schedule(3, 2), skips=[(0, 2)])
    late = next(action for action in lists[0] if str(action) == "0SEND_F0to2")
    at = [
        [str(action) for action in actions].index(where)
        for actions, where in zip(lists, ("0F1", "1B0", "2F0"), strict=True)
    ]
    lists[0] = [*(action for action in lists[0] if action != late), late]
    statuses = [RankStatus(f"rank {rank}", lists[rank], 1, place, 60.0) for rank, place in enumerate(at)]
    assert waits(statuses)[2] == Wait(2, 0, "2RECV_F0from0")


def test_every_phase_of_a_rank_has_a_place_in_its_step():
    assert sorted((*BEFORE, *AFTER)) == sorted(Phase)
