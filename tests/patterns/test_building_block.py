from __future__ import annotations

import pytest

from pipezoo.action import Op
from pipezoo.patterns.building_block import weave


def spelled(steps):
    names = {Op.F: "Ff", Op.I: "Ii", Op.W: "Ww"}
    return " ".join(names[Op(op)][slot] + str(k) for op, slot, k in zip(*steps[:3], strict=True))


def test_one_rank_waits_for_memory_alone():
    assert spelled(weave([(0, 1, 2, 3)], 2)[0]) == "F0 f0 i0 I0 w0 F1 W0 f1 i1 I1 w1 W1"


def test_two_ranks_follow_their_block():
    block = [(0, 3, 4, 7), (1, 2, 5, 6)]
    assert [spelled(steps) for steps in weave(block, 3)] == [
        "F0 F1 f0 i0 w0 I0 W0 f1 i1 F2 w1 I1 W1 f2 i2 w2 I2 W2",
        "F0 f0 i0 I0 F1 f1 w0 W0 i1 I1 F2 f2 w1 W1 i2 I2 w2 W2",
    ]


@pytest.mark.parametrize("num_microbatches", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("p", [1, 2, 3, 4, 7])
def test_every_pass_is_there_once_and_no_rank_holds_more_than_the_block_does(p, num_microbatches):
    gap = 0 if p % 3 else 2
    block = [(rank, 2 * p - 1 - rank, 2 * p + gap + rank, 4 * p - 1 + gap - rank) for rank in range(p)]
    for steps in weave(block, num_microbatches):
        assert len(set(zip(steps.op, steps.slot, steps.microbatch, strict=True))) == 6 * num_microbatches
        held = (steps.op == Op.F).astype(int).cumsum() - (steps.op == Op.W).cumsum()
        assert held.max() <= 2 * ((p + 4) // 3)
