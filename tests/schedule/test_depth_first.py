"""Ranks merged into one list: each keeps its order, nobody runs before what it needs, microbatches are followed."""

from __future__ import annotations

import pytest

from pipezoo.schedule.action import Action, Op
from pipezoo.schedule.depth_first import BACKWARD, depth_first
from pipezoo.schedule.lowering import lower
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.gpipe import gpipe
from pipezoo.schedules.interleaved_zero_bubble import interleaved_zero_bubble
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zb_h1 import zb_h1
from pipezoo.schedules.zbv import zbv

SCHEDULES = [gpipe(3, 4), one_f_one_b(4, 6), zb_h1(3, 6), zbv(3, 6), interleaved_zero_bubble(3, 6)]


def in_one_process(schedule: Schedule) -> list[Action]:
    return lower(schedule, (0,) * schedule.num_stages)[0]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_every_rank_keeps_its_order(schedule: Schedule) -> None:
    before = in_one_process(schedule)
    after = depth_first(before, schedule.stage_to_rank)
    for rank in range(schedule.num_ranks):
        of_rank = [[a for a in actions if schedule.stage_to_rank[a.stage] == rank] for actions in (before, after)]
        assert of_rank[0] == of_rank[1]
    assert len(after) == len(before)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_nobody_runs_before_what_it_needs(schedule: Schedule) -> None:
    done: set[tuple[str, int, int | None]] = set()
    last = schedule.num_stages - 1
    for action in depth_first(in_one_process(schedule), schedule.stage_to_rank):
        stage, mb = action.stage, action.microbatch
        if action.op == Op.F:
            assert stage == 0 or ("F", stage - 1, mb) in done
            done.add(("F", stage, mb))
        elif action.op in BACKWARD:
            assert ("F", stage, mb) in done
            assert stage == last or ("B", stage + 1, mb) in done
            done.add(("B", stage, mb))


def test_a_microbatch_goes_as_far_as_it_can() -> None:
    schedule = one_f_one_b(3, 3)
    merged = [a for a in depth_first(in_one_process(schedule), schedule.stage_to_rank) if a.op != Op.REDUCE_GRAD]
    assert " ".join(map(str, merged)) == "0F0 1F0 2F0 2B0 0F1 1F1 2F1 2B1 0F2 1B0 0B0 1F2 2F2 2B2 1B1 0B1 1B2 0B2"
