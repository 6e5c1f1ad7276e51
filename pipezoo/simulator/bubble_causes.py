"""Why ranks were idle: every idle moment of a step has one cause, and the causes add up to the bubble.

The same order is played again with one cause removed at a time. What the idle time of a rank loses at each turn is
what that cause was worth:

    as it ran                          |0F0|..|0F1|......|0B0|        idle
      - slowed actions                 each action takes what it takes on a core of its own
      - dispatch                       the next action begins as soon as its rank and its input are there
      - messages                       an input is there when its sender made it
      - uneven stages                  every stage, and every microbatch, takes the mean of all
      - order                          the best order that there can be (pipezoo.simulator.bounds)
      = fill and drain                 what no order avoids: ranks wait for the first input, and end before the last

The turns are taken in this order. Another order of removal gives other numbers where two causes hide each other. A
part below 0 says so: without that cause the ranks would be idle for longer, as a slow action of a rank that nobody
waits for is work, and no idle time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from pipezoo.schedule.action import COMPUTE, Op
from pipezoo.schedule.event_loop import run_event_loop
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedule.table import Mask
from pipezoo.simulator.bounds import lower_bound
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.cost_entries import Floats
from pipezoo.simulator.simulate import Simulation, simulate
from pipezoo.simulator.skip_messages import SkipMessage, Wait, waits
from pipezoo.simulator.timeline import Timeline
from pipezoo.simulator.virtual_clock import by_action

CAUSES = ("fill_and_drain", "order", "uneven_stages", "messages", "dispatch", "slowed")
UNHURRIED = 0.1  # the quantile of messages' delays that is taken for a message's own, where ranks share cores


@dataclass(frozen=True, eq=False)
class BubbleCauses:
    """Idle time by cause.

    Args:
        idle: ``[num_causes, num_ranks]`` in the order of :data:`CAUSES`, in the unit of the timeline.
        makespan: of the timeline that is explained.
    """

    idle: Floats
    makespan: float

    def shares(self) -> dict[str, float]:
        """Each cause as a share of all ranks' time; their sum is the bubble over the makespan."""
        return {name: float(share) for name, share in zip(CAUSES, self._shares().mean(axis=1), strict=True)}

    def summary(self) -> dict[str, Any]:
        """:meth:`shares` and :meth:`by_rank` as plain numbers for ``result.json``."""
        return {**self.shares(), "by_rank": self.by_rank()}

    def by_rank(self) -> dict[str, list[float]]:
        """Each cause as a share of each rank's time; on every rank their sum is the idle share."""
        return dict(zip(CAUSES, self._shares().tolist(), strict=True))

    def _shares(self) -> Floats:
        shares: Floats = self.idle / self.makespan if self.makespan else np.zeros_like(self.idle)
        return shares


@dataclass(frozen=True, eq=False)
class Clocks:
    """``[num_actions]`` each, in the order of the schedule: the seconds that the thread of a rank had computed when an
    action began and when it ended. Where the wall went on and these did not, the thread had no core."""

    begin: Floats
    end: Floats


def causes_of_simulation(simulation: Simulation) -> BubbleCauses:
    """The causes of a predicted timeline. Nothing in it is slowed, and dispatch is part of what actions cost."""
    schedule, cost = simulation.schedule, simulation.cost
    quick = simulate(schedule, cost.instant())
    even = simulate(schedule, _even(schedule, quick.cost, quick.end - quick.start))
    turns = [_idle(line) for line in (simulation, quick, even)]
    return _causes([turns[0], *turns], even.cost, schedule, simulation.makespan)


def causes_of_run(
    schedule: Schedule,
    measured: Timeline,
    *,
    p2p: Floats | None = None,
    alone: Floats | None = None,
    clocks: Clocks | None = None,
    shares_cores: bool = False,
    skips: Sequence[tuple[SkipMessage, float]] = (),
) -> BubbleCauses:
    """The causes of one step that was measured.

    Args:
        schedule: what ran, computations only.
        measured: the timeline of the step, one span for each action.
        p2p: ``[num_stages - 1]`` what a message takes between neighbours, where that is known (emulated and virtual
            ranks). None: it is taken from the delays of this step.
        alone: ``[num_stages, 4]`` what each op takes on a device of its own, where that is known. None: what ``clocks``
            say, and without clocks what it took.
        clocks: of the threads of the ranks.
        shares_cores: there are more ranks than cores. A message that waited longer than the unhurried ones then waited
            for a core.
        skips: what messages past other stages take, where ``p2p`` is known; what they hold up is due to messages.
    """
    start, end = by_action(schedule, measured)
    start, end = start - start.min(initial=np.inf), end - start.min(initial=np.inf)
    lag, late, waited = _delays(schedule, start, end, p2p, shares_cores, waits(schedule, skips))
    took = end - start
    dispatch = np.where(waited & shares_cores, 0.0, late)
    own = took
    if alone is not None:
        own = np.minimum(took, alone[schedule.stage, schedule.op])
    elif clocks is not None:
        own = np.minimum(took, clocks.end - clocks.begin)
        idle_before = clocks.begin - np.append(0.0, clocks.end[:-1])
        idle_before[schedule.offsets[:-1][np.diff(schedule.offsets) > 0]] = np.inf
        dispatch = np.minimum(dispatch, np.maximum(0.0, idle_before))
    cost = _even(schedule, None if alone is None else Cost(alone), own)
    even = simulate(schedule, cost)
    turns = [
        _play(schedule, took, late, lag),
        _play(schedule, own, dispatch, lag),
        _play(schedule, own, np.zeros_like(own), lag),
        _play(schedule, own, np.zeros_like(own), np.zeros_like(lag)),
        _idle(even),
    ]
    return _causes(turns, cost, schedule, measured.makespan)


def _delays(
    schedule: Schedule, start: Floats, end: Floats, p2p: Floats | None, shares_cores: bool, also: Sequence[Wait]
) -> tuple[Floats, Floats, Mask]:
    """``[num_actions]`` each: how long after its making the input was there, how long after rank and input were there
    the action began, and whether its rank waited for the input.

        sender    |--1F0--|
        receiver     |0..|.......~~~lag~~~|..late..|--2F0--|
    """
    source, index = schedule.source, np.arange(schedule.num_actions)
    first = np.zeros(schedule.num_actions, dtype=bool)
    first[schedule.offsets[:-1][np.diff(schedule.offsets) > 0]] = True
    crosses = (source >= 0) & (schedule.rank[source] != schedule.rank)
    free = np.where(first, 0.0, end[index - 1])
    made = np.where(source < 0, 0.0, end[source])
    skipped = np.zeros(schedule.num_actions)  # how long after its neighbour's result the last skip was there
    for skip, takes in also:
        skipped = np.maximum(skipped, np.where((skip >= 0) & (takes > 0), end[skip] + takes - made, 0.0))
    delay = np.where(crosses | (skipped > 0), np.maximum(0.0, start - made), 0.0)
    waited = crosses & (made > free)
    if p2p is not None:
        boundary = np.clip(np.minimum(schedule.stage, schedule.stage[source]), 0, max(0, len(p2p) - 1))
        lag = np.where(crosses, p2p[boundary] if len(p2p) else 0.0, 0.0)
    else:
        seen = delay[waited]
        own = float(np.quantile(seen, UNHURRIED if shares_cores else 0.5)) if len(seen) else 0.0
        lag = np.where(waited & (not shares_cores), delay, np.where(crosses, own, 0.0))
    lag = np.minimum(np.maximum(lag, skipped), delay)
    late = np.maximum(0.0, start - np.maximum(free, np.where(source < 0, 0.0, made + lag)))
    return lag, late, waited


def _play(schedule: Schedule, took: Floats, late: Floats, lag: Floats) -> Floats:
    """``[num_ranks]`` how long each rank is idle when actions take, begin late and wait for messages as told."""
    ends = run_event_loop(schedule.offsets, schedule.source, took + late, lag)
    begun = float((ends - took).min(initial=np.inf))
    busy = np.bincount(schedule.rank, weights=took, minlength=schedule.num_ranks)
    idle: Floats = (float(ends.max(initial=0.0)) - begun - busy).astype(np.float64)
    return idle


def _idle(timeline: Timeline) -> Floats:
    idle: Floats = timeline.makespan - timeline.busy()
    return idle


def _even(schedule: Schedule, cost: Cost | None, took: Floats) -> Cost:
    """Every stage takes the mean of all actions of its op; an op that did not run keeps its mean over the stages."""
    seconds = np.full((schedule.num_stages, len(COMPUTE)), np.nan)
    for op in COMPUTE:
        ran = schedule.op == op
        if ran.any():
            seconds[:, op] = took[ran].mean()
        elif cost is not None:
            seconds[:, op] = cost.seconds[:, op].mean()
    return Cost(seconds) if cost is None else replace(cost, seconds=seconds)


def _causes(turns: list[Floats], even: Cost, schedule: Schedule, makespan: float) -> BubbleCauses:
    """What each turn took off the idle time of every rank."""
    bound = lower_bound(even, schedule.stage_to_rank, schedule.num_microbatches)
    fill = bound - _least_work(even, schedule)
    parts = [before - after for before, after in pairwise(turns)]
    order = turns[-1] - fill
    slowed, dispatch, messages, uneven = [np.zeros_like(fill)] * (4 - len(parts)) + parts
    return BubbleCauses(np.stack([fill, order, uneven, messages, dispatch, slowed]), makespan)


def _least_work(cost: Cost, schedule: Schedule) -> Floats:
    """``[num_ranks]`` the work that the bound counts: backwards whole or split, whichever is shorter."""
    forward, whole = cost.seconds[:, Op.F], cost.seconds[:, Op.B]
    backward = np.fmin(whole, cost.seconds[:, Op.I] + cost.seconds[:, Op.W])
    forward_by_rank, backward_by_rank = (
        np.bincount(schedule.stage_to_rank, weights=each, minlength=schedule.num_ranks) for each in (forward, backward)
    )
    hidden = cost.overlap_gain * np.minimum(forward_by_rank, backward_by_rank)
    work: Floats = (schedule.num_microbatches * (forward_by_rank + backward_by_rank - hidden)).astype(np.float64)
    return work
