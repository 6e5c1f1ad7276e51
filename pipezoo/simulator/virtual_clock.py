"""A timeline of actions that ran one after the other, as their ranks would have run them on devices of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipezoo.schedule.event_loop import run_event_loop
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import P2P
from pipezoo.simulator.cost_entries import Floats
from pipezoo.simulator.skip_messages import SkipMessage, waits
from pipezoo.simulator.timeline import Timeline


class MessageBytes(NamedTuple):
    """How large the messages of a microbatch are.

    Args:
        neighbours: ``[num_stages + 1]`` bytes into each stage, and out of the last.
        skips: what goes past other stages.
    """

    neighbours: Sequence[float]
    skips: Sequence[SkipMessage] = ()

    def skip_seconds(self, schedule: Schedule, p2p: P2P) -> list[tuple[SkipMessage, float]]:
        """What each skip takes; 0 where its stages share a rank."""
        ranks = schedule.stage_to_rank
        return [
            (one, 0.0 if ranks[one.before] == ranks[one.after] else float(p2p.seconds(np.float64(one.num_bytes))))
            for one in self.skips
        ]


def replay(schedule: Schedule, real: Timeline, p2p: P2P, message_bytes: MessageBytes) -> Timeline:
    """The timeline of one step on the virtual clock.

    Every action takes what it took, and starts when its rank is free and its inputs have arrived, skips included.

    Args:
        schedule: what ran.
        real: when each of its actions ran.
        p2p: what a message between two ranks takes.
        message_bytes: how large the messages are.
    """
    schedule = schedule.compute_only()
    start, end = by_action(schedule, real)
    took = end - start
    lags = _lags(schedule, p2p, message_bytes.neighbours)
    also = waits(schedule, message_bytes.skip_seconds(schedule, p2p))
    ended = run_event_loop(schedule.offsets, schedule.source, took, lags, also)
    return Timeline.of(schedule, ended - took, ended, "measured")


def by_action(schedule: Schedule, timeline: Timeline) -> tuple[Floats, Floats]:
    """Start and end of every action of a schedule of compute actions, in its order; spans may be in any order."""
    timeline = timeline.computing
    index = _index(schedule, schedule.stage, schedule.op, schedule.microbatch)
    place = np.argsort(index)
    spans = _index(schedule, timeline.stage, timeline.op, timeline.microbatch)
    at = place[np.searchsorted(index[place], spans)]
    start, end = np.empty(schedule.num_actions), np.empty(schedule.num_actions)
    start[at], end[at] = timeline.start, timeline.end
    return start, end


def _index(schedule: Schedule, stage: NDArray, op: NDArray, microbatch: NDArray) -> NDArray[np.int64]:
    """One number for each action."""
    num_stages, num_microbatches = schedule.num_stages, schedule.num_microbatches
    index: NDArray[np.int64] = (op.astype(np.int64) * num_stages + stage) * num_microbatches + microbatch
    return index


def _lags(schedule: Schedule, p2p: P2P, message_bytes: Sequence[float]) -> Floats:
    """``[num_actions]``: what the message that brings each action's input takes; 0 within a rank."""
    source = schedule.source
    crosses = (source >= 0) & (schedule.rank[source] != schedule.rank)
    boundary = np.minimum(schedule.stage, schedule.stage[source]) + 1
    return np.where(crosses, p2p.seconds(np.asarray(message_bytes, dtype=np.float64)[boundary]), 0.0)
