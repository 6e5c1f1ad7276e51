"""What a rank holds for the backward: bytes by rank over time, and their peak.

    rank 0   |0F0|0F1|0F2|0I0|0W0|0I1|0W1| ...       F adds what its stage keeps, at its start;
    held       1   2   3   3   2.5 2   2             I frees its part at its end, W the rest; B frees all

A rank does one action at a time, so the peak follows from its order alone; time only says how long it lasts.
"""

from __future__ import annotations

import numpy as np

from pipezoo.schedule.action import COMPUTE, Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.cost_entries import Floats
from pipezoo.simulator.timeline import Timeline


def locked(schedule: Schedule, cost: Cost) -> tuple[Floats, Floats]:
    """``[num_actions]`` each: bytes on the action's rank while it runs, and right after it.

    The two of an overlapped pair run together: what the second one adds is there during the first.
    """
    code = schedule.stage * len(COMPUTE) + schedule.op
    added, freed = _tables(cost)
    after = np.cumsum((added - freed).take(code))  # every rank ends with what it began with: one sum serves all of them
    during = after + freed.take(code)
    if schedule.overlap is not None:
        first = np.flatnonzero(schedule.overlap)
        during[first] += added.take(code[first + 1])
    return during, after


def peak_memory(schedule: Schedule, cost: Cost) -> Floats:
    """``[num_ranks]``: the most that each rank holds at once; bytes, or rank-microbatches at unit cost."""
    schedule = schedule.compute_only()
    during, _ = locked(schedule, cost)
    return np.maximum.reduceat(during, schedule.offsets[:-1])


def memory_over_time(schedule: Schedule, cost: Cost, timeline: Timeline) -> list[tuple[Floats, Floats]]:
    """For each rank, ``(times, bytes)``: from ``times[i]`` on the rank holds ``bytes[i]``.

    Args:
        schedule: the order that made the timeline.
        timeline: its spans in the schedule's order, as the simulator gives them.
    """
    schedule = schedule.compute_only()
    during, after = locked(schedule, cost)
    grows = schedule.op == Op.F
    when = np.where(grows, timeline.start, timeline.end)
    level = np.where(grows, during, after)
    if schedule.overlap is not None:
        first = np.flatnonzero(schedule.overlap)
        first = first[grows[first + 1]]  # a backward, joined by a forward whose memory is there from the pair's start
        when[first + 1], level[first + 1] = timeline.start[first], during[first]
        level[first] = during[first + 1]
    steps = []
    for low, high in zip(schedule.offsets[:-1], schedule.offsets[1:], strict=True):
        by_time = low + np.argsort(when[low:high], kind="stable")
        steps.append((when[by_time], level[by_time]))
    return steps


def _tables(cost: Cost) -> tuple[Floats, Floats]:
    """``[num_stages, 4]`` each: bytes that an op of a stage adds at its start and frees at its end."""
    added, freed = np.zeros((2, cost.num_stages, len(COMPUTE)))
    added[:, Op.F] = cost.activation_bytes
    freed[:, Op.B] = cost.activation_bytes
    freed[:, Op.I] = cost.freed_by_input_grad
    freed[:, Op.W] = cost.activation_bytes - cost.freed_by_input_grad
    return added, freed
