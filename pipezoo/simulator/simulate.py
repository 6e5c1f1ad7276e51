"""Schedule x Cost -> Timeline: an action starts when its rank is free and its input has arrived.

    rank 0 |0F0|0F1|                   overlap: the message of 0F0 is under way while rank 0 goes on with 0F1
    rank 1      ~~~|1F0|               ~~~ the p2p message

    rank 0 |0F0|~~~|0F1|~~~            no overlap: a message keeps the sender busy right after the action that made
    rank 1     |~~~|1F0|               it, and the receiver right before the action that needs it; where the receiver
                                       was waiting, both are the same moment

An action with skips waits for the last of its messages. Messages never wait for one another, and two stages of one rank
hand over in no time. The timeline that comes out knows its schedule and its costs, and so its memory, its critical path
and what no order can beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipezoo.errors import MISSING, ArgumentError
from pipezoo.schedule.action import COMPUTE, Op
from pipezoo.schedule.event_loop import run_event_loop
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedule.table import Ints
from pipezoo.simulator.bounds import lower_bound
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.cost_entries import Floats
from pipezoo.simulator.critical_path import CriticalPath, trace
from pipezoo.simulator.memory import peak_memory
from pipezoo.simulator.skip_messages import Wait, waits
from pipezoo.simulator.timeline import Timeline


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Simulation(Timeline):
    """A predicted timeline that knows what made it. Its spans are the actions of ``schedule``, in that order.

    All arrays are ``[num_actions]``; times are in the unit of the costs, from the first start at 0.

    Args:
        schedule: what was simulated, computations only.
        cost: what its actions took.
        done: when an action's rank could go on: ``end`` but for pairs that overlap and messages that do not.
        lag: how long after ``done`` of its source the input of each action was there, or one number for all.
        needs: what each action waited for longest, of its neighbour's result and its skips; -1 for nothing.
        into: where messages keep their ranks busy, how long each action's own did; else 0.
    """

    schedule: Schedule
    cost: Cost
    done: Floats
    lag: Floats | float
    needs: Ints
    into: Floats | float

    @cached_property
    def peak_memory(self) -> Floats:
        """``[num_ranks]``: the most that each rank holds for its backwards at once, in the unit of the costs."""
        return peak_memory(self.schedule, self.cost)

    @cached_property
    def lower_bound(self) -> float:
        """The makespan that no order of the same work on the same ranks can beat."""
        return lower_bound(self.cost, self.schedule.stage_to_rank, self.schedule.num_microbatches)

    @cached_property
    def critical_path(self) -> CriticalPath:
        """The chain of actions that made the last one end when it did."""
        schedule = self.schedule
        free = self.into + np.append(0.0, self.done[:-1])
        free[schedule.offsets[:-1]] = (self.into + np.zeros(schedule.num_actions))[schedule.offsets[:-1]]
        arrived = self.done.take(self.needs) + self.lag + self.into
        return trace(schedule, self.start, self.end, (arrived > free) & (self.needs >= 0), self.needs)

    @property
    def step(self) -> float:
        """How long a step takes: until the slowest rank has done its optimizer step."""
        schedule = self.schedule
        ends = self.end[schedule.offsets[1:] - 1]
        optimizer = np.bincount(schedule.stage_to_rank, weights=self.cost.optimizer, minlength=schedule.num_ranks)
        return float((ends + optimizer).max())

    def result(self) -> dict[str, Any]:
        """What is known of it, as plain numbers for ``result.json``.

        ``step_seconds`` ends when the slowest rank has done its optimizer step; ``lower_bound`` holds for every order
        of the same work on the same ranks and ``gap`` is the bubble's distance to it; ``peak_memory`` is per rank, in
        the unit of the costs.
        """
        bubble, work = self.bubbles(), float(self.busy().sum())
        least = max(0.0, 1.0 - work / (self.num_ranks * self.lower_bound)) if self.lower_bound else 0.0
        return {
            "step_seconds": self.step,
            "makespan_seconds": self.makespan,
            "bubble": bubble,
            "lower_bound": {"makespan_seconds": self.lower_bound, "bubble": least},
            "gap": bubble["makespan"] - least,
            "peak_memory": self.peak_memory.tolist(),
            "critical_path": self.critical_path.summary(),
        }


def simulate(schedule: Schedule, cost: Cost) -> Simulation:
    """Say when every action of the schedule runs if it costs what ``cost`` says.

    Messages written out in the schedule are left out of the timeline: the p2p messages of ``cost`` stand for them.

    Raises:
        ValueError: the cost has another number of stages, or does not know an op that the schedule uses.
    """
    schedule = schedule.compute_only()
    cost = cost.for_stages(schedule.num_stages)
    _check(schedule, cost)
    code = schedule.stage * len(COMPUTE) + schedule.op
    take = cost.seconds.take(code)
    into_table, out_table = _p2p_seconds(schedule, cost)
    into = into_table.take(code) if into_table.any() else 0.0
    busy, lag = take, into
    if cost.overlap:
        into = 0.0
    else:
        busy, lag = take + into + out_table.take(code), -into
    hidden = _hidden(schedule, cost, take)
    if hidden is not None:  # the first of a pair lets the second start early, yet its own result is there no sooner
        busy, lag = take - hidden, lag + np.where(schedule.source < 0, 0.0, hidden[schedule.source])
    also = _skips(schedule, cost, lag if not cost.overlap else None, hidden)
    done = run_event_loop(schedule.offsets, schedule.source, busy, lag, also)
    needs, lag = _binding(schedule.source, lag, also, done)

    start = done.take(needs)
    start += lag
    start[needs < 0] = 0.0
    free = done[:-1].copy()
    free[schedule.offsets[1:-1] - 1] = 0.0
    np.maximum(start[1:], free, out=start[1:])
    start += into
    end = done if busy is take else start + take
    return Simulation(
        rank=schedule.rank,
        stage=schedule.stage,
        op=schedule.op,
        microbatch=schedule.microbatch,
        start=start,
        end=end,
        num_ranks=schedule.num_ranks,
        source="predicted",
        unit=cost.unit,
        schedule=schedule,
        cost=cost,
        done=done,
        lag=lag,
        needs=needs,
        into=into,
    )


def predict(schedule: Schedule, cost: Cost) -> dict[str, Any]:
    """:meth:`Simulation.result` of a schedule at a cost. Raises what :func:`simulate` raises."""
    return simulate(schedule, cost).result()


def _check(schedule: Schedule, cost: Cost) -> None:
    if cost.num_stages != schedule.num_stages:
        why = f"it has {cost.num_stages} stages, but schedule {schedule.name!r} has {schedule.num_stages}"
        raise ArgumentError("cost", MISSING, why)
    used = np.zeros_like(cost.seconds, dtype=bool)
    used[schedule.stage, schedule.op] = True
    for stage, op in np.argwhere(used & np.isnan(cost.seconds)).tolist():
        why = f"is missing; schedule {schedule.name!r} splits the backward, which these costs have only as a whole (B)"
        raise ArgumentError(f"stages[{stage}].{Op(op).name}", MISSING, why)


def _p2p_seconds(schedule: Schedule, cost: Cost) -> tuple[Floats, Floats]:
    """``[num_stages, 4]`` each: what the message into, and out of, a stage's F, B, I, W takes."""
    p2p_seconds = cost.p2p_seconds(schedule.stage_to_rank)
    into, out = np.zeros((2, schedule.num_stages, len(COMPUTE)))
    into[1:, Op.F] = out[:-1, Op.F] = p2p_seconds
    for op in (Op.B, Op.I):
        into[:-1, op] = out[1:, op] = p2p_seconds
    if not cost.overlap:  # a skip keeps its ranks as busy
        for message, seconds in cost.skip_seconds(schedule.stage_to_rank):
            into[message.after, Op.F] += seconds
            out[message.before, Op.F] += seconds
            for op in (Op.B, Op.I):
                into[message.before, op] += seconds
                out[message.after, op] += seconds
    return into, out


def _skips(schedule: Schedule, cost: Cost, busy_lag: Floats | float | None, hidden: Floats | None) -> list[Wait]:
    """What actions wait for beside their neighbours' results."""
    found = waits(schedule, cost.skip_seconds(schedule.stage_to_rank))
    for number, (source, lag) in enumerate(found):
        if busy_lag is not None:
            lag = np.where(source < 0, 0.0, busy_lag)
        if hidden is not None:
            lag = lag + np.where(source < 0, 0.0, hidden[source])
        found[number] = Wait(source, lag)
    return found


def _binding(source: Ints, lag: Floats | float, also: Sequence[Wait], done: Floats) -> tuple[Ints, Floats | float]:
    """What each action waited for longest, and how long after its end that was there."""
    for other, late in also:
        later = (other >= 0) & ((source < 0) | (done.take(other) + late > done.take(source) + lag))
        source, lag = np.where(later, other, source), np.where(later, late, lag)
    return source, lag


def _hidden(schedule: Schedule, cost: Cost, take: Floats) -> Floats | None:
    """``[num_actions]``: for the first of an overlapped pair, the seconds by which the second may start early.

    Only a forward and a part of a backward hide each other: they use the machine differently.
    """
    if schedule.overlap is None or not cost.overlap_gain:
        return None
    first = np.flatnonzero(schedule.overlap)
    first = first[(schedule.op[first] == Op.F) != (schedule.op[first + 1] == Op.F)]
    hidden = np.zeros_like(take)
    hidden[first] = cost.overlap_gain * np.minimum(take[first], take[first + 1])
    return hidden
