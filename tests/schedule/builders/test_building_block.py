from __future__ import annotations

import pytest

from pipezoo.schedule.action import Op
from pipezoo.schedule.builders.building_block import weave


def spelled(schedule):
    """Each rank's order; small letters are of the stage on the way up."""
    down = {Op.F: "F", Op.I: "I", Op.W: "W"}
    return [
        " ".join(
            (down[op] if stage < schedule.num_ranks else down[op].lower()) + str(microbatch)
            for stage, op, microbatch, *_ in order
        )
        for order in schedule.order
    ]


def test_one_rank_waits_for_memory_alone():
    assert spelled(weave([(0, 1, 2, 3)], 2, "one")) == ["F0 f0 i0 I0 w0 F1 W0 f1 i1 I1 w1 W1"]


def test_two_ranks_follow_their_block():
    block = [(0, 3, 4, 7), (1, 2, 5, 6)]
    woven = weave(block, 3, "two")
    assert woven.stage_to_rank == (0, 1, 1, 0)
    assert spelled(woven) == [
        "F0 F1 f0 i0 w0 I0 W0 f1 i1 F2 w1 I1 W1 f2 i2 w2 I2 W2",
        "F0 f0 i0 I0 F1 f1 w0 W0 i1 I1 F2 f2 w1 W1 i2 I2 w2 W2",
    ]


@pytest.mark.parametrize("num_microbatches", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("p", [1, 2, 3, 4, 7])
def test_no_rank_holds_more_than_the_block_does(p, num_microbatches):
    gap = 0 if p % 3 else 2
    block = [(rank, 2 * p - 1 - rank, 2 * p + gap + rank, 4 * p - 1 + gap - rank) for rank in range(p)]
    woven = weave(block, num_microbatches, "woven")
    assert woven.num_actions == 6 * p * num_microbatches
    for first, last in zip(woven.offsets[:-1], woven.offsets[1:], strict=True):
        op = woven.op[first:last]
        locked = (op == Op.F).astype(int).cumsum() - (op == Op.W).cumsum()
        assert locked.max() <= 2 * ((p + 4) // 3)
