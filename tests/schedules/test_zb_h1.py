from __future__ import annotations

import numpy as np
import pytest

from pipezoo.schedule.action import Op
from pipezoo.schedule.event_loop import run_event_loop
from pipezoo.schedules.interleaved_zero_bubble import interleaved_zero_bubble
from pipezoo.schedules.zb_h1 import zb_h1


def test_three_ranks_as_drawn():
    assert [" ".join(map(str, order)) for order in zb_h1(3, 4).order] == [
        "0F0 0F1 0F2 0I0 0W0 0F3 0I1 0W1 0I2 0W2 0I3 0W3",
        "1F0 1F1 1I0 1F2 1I1 1W0 1F3 1I2 1W1 1I3 1W2 1W3",
        "2F0 2I0 2F1 2I1 2F2 2I2 2W0 2F3 2I3 2W1 2W2 2W3",
    ]


@pytest.mark.parametrize("p", range(1, 9))
@pytest.mark.parametrize("rounds", [1, 1.5, 2, 3])
def test_bubble_and_memory_are_the_paper_s(p, rounds):
    m = int(rounds * p)
    schedule = zb_h1(p, m)
    assert run_event_loop(schedule.offsets, schedule.source, 1.0).max() == 3 * m + p - 1
    for rank in range(p):
        ops = schedule.op[schedule.offsets[rank] : schedule.offsets[rank + 1]]
        locked = np.cumsum((ops == Op.F).astype(int) - (ops == Op.W))
        assert locked.max() == p


def test_it_is_the_interleaved_order_of_one_stage_per_rank():
    for p, m in ((2, 4), (4, 4), (4, 12), (8, 16)):
        assert zb_h1(p, m) == interleaved_zero_bubble(p, m, 1)
