"""Small timelines for the tests of the report: 1F1B on unit costs, played by the clock."""

from __future__ import annotations

import numpy as np

from pipezoo.schedule.action import Op
from pipezoo.schedule.event_loop import run_event_loop
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.timeline import Timeline

UNIT = {Op.F: 1.0, Op.B: 2.0, Op.I: 1.0, Op.W: 1.0}


def one_f_one_b(num_ranks: int, num_microbatches: int, halves: bool = False) -> Schedule:
    """Warm-up forwards, then one forward and one backward in turn; ``halves`` writes each backward as I then W."""
    orders = []
    for rank in range(num_ranks):
        warmup = min(num_microbatches, num_ranks - rank - 1)
        order = [f"{rank}F{i}" for i in range(warmup)]
        for i in range(num_microbatches):
            if warmup + i < num_microbatches:
                order.append(f"{rank}F{warmup + i}")
            order += [f"{rank}I{i}", f"{rank}W{i}"] if halves else [f"{rank}B{i}"]
        orders.append(order)
    return Schedule.from_orders(orders, name="1f1b")


def timeline(
    num_ranks: int,
    num_microbatches: int,
    halves: bool = False,
    seconds: float = 1.0,
    jitter: float = 0.0,
    source: str = "predicted",
) -> Timeline:
    """1F1B where F takes ``seconds`` and B twice that, each longer or shorter by up to ``jitter`` of itself."""
    schedule = one_f_one_b(num_ranks, num_microbatches, halves)
    cost = np.array([UNIT[Op(code)] for code in schedule.op]) * seconds
    cost *= np.random.default_rng(0).uniform(1 - jitter, 1 + jitter, len(cost))
    end = run_event_loop(schedule.offsets, schedule.source, cost)
    return Timeline.of(schedule, end - cost, end, source)
