"""Who waited for whom: the chain of actions that made the pipeline end when it did.

    rank 0 |0F0|0F1|   .   |0B0|0B1|          0F0 -> 1F0 (message) -> 1B0 (rank busy) -> 1F1 (rank busy)
    rank 1     |1F0|1B0|1F1|1B1|                  -> 1B1 (rank busy) -> 0B1 (message)

From the action that ends last, step back to what it had to wait for longest: the action before it on its rank, or the
one whose message it needs. Where both ended at the same moment it is the rank's: a faster message would not help.

    legs      rank 0: 0F0    rank 1: 1F0 .. 1B1 (4 actions)    rank 0: 0B1           a rank after the other, as it goes
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from pipezoo.schedule.action import Action, Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedule.table import Ints, Mask
from pipezoo.simulator.cost_entries import Floats

MOST_LEGS = 24  # that a summary lists, half of them from the beginning and half from the end


class Step(NamedTuple):
    """One action of the path; ``waited_for`` is "nothing", "rank" or "message", and ``waited`` is how long after the
    end of the step before it started, which is the p2p message."""

    action: Action
    rank: int
    start: float
    end: float
    waited_for: str
    waited: float


class Leg(NamedTuple):
    """A part of the path that stays on one rank: its first and its last action, and how long it computes."""

    rank: int
    first: Action
    last: Action
    num_actions: int
    compute: float

    def __str__(self) -> str:
        where = f"rank {self.rank}: {self.first}"
        return where if self.num_actions == 1 else f"{where} .. {self.last}, {self.num_actions} actions"


@dataclass(frozen=True, eq=False)
class CriticalPath:
    """The path from the first action to the last, in the order of time.

    Args:
        schedule: the order that it leads through.
        at: ``[num_steps]`` indices of its actions.
        message: ``[num_steps]`` true where an action waited for its input rather than for its rank.
        start, end: ``[num_steps]`` when they ran.
    """

    schedule: Schedule
    at: Ints
    message: Mask
    start: Floats
    end: Floats

    @property
    def waited(self) -> Floats:
        """``[num_steps]``: how long after the end of the step before it each one started."""
        waited: Floats = self.start - np.append(0.0, self.end[:-1])
        return waited

    @property
    def steps(self) -> list[Step]:
        """Each action with what it waited for."""
        words = np.where(self.message, "message", "rank").tolist()
        words[0] = "nothing"
        columns = (self.schedule.rank[self.at], self.start, self.end, self.waited)
        rows = zip(self.at.tolist(), words, *(column.tolist() for column in columns), strict=True)
        return [Step(self._action(i), rank, start, end, why, waited) for i, why, rank, start, end, waited in rows]

    def legs(self) -> list[Leg]:
        """The path rank by rank; there is one leg more than it crosses between ranks."""
        rank = self.schedule.rank[self.at]
        edges = np.flatnonzero(np.diff(rank, prepend=-1, append=-1)).tolist()
        took = self.end - self.start
        return [
            Leg(
                int(rank[low]),
                self._action(int(self.at[low])),
                self._action(int(self.at[high - 1])),
                high - low,
                float(took[low:high].sum()),
            )
            for low, high in pairwise(edges)
        ]

    def summary(self) -> dict[str, Any]:
        """Plain numbers: how long the path computes (in all, and by op), and waits for messages, and where it goes.

        Of more than ``MOST_LEGS`` legs it lists the first and the last ones; ``num_legs`` counts all.
        """
        took, op, rank = self.end - self.start, self.schedule.op[self.at], self.schedule.rank[self.at]
        by_op, by_rank = np.bincount(op, took), np.bincount(rank, took)
        seconds = {Op(code).name: float(by_op[code]) for code in np.unique(op).tolist()}
        legs = self.legs()
        shown = legs if len(legs) <= MOST_LEGS else [*legs[: MOST_LEGS // 2], *legs[-MOST_LEGS // 2 :]]
        return {
            "num_actions": len(self.at),
            "compute_seconds": sum(seconds.values()),
            "compute_seconds_by_op": dict(sorted(seconds.items())),
            "compute_seconds_by_rank": {str(at): float(by_rank[at]) for at in np.unique(rank).tolist()},
            "num_messages": int(np.count_nonzero(self.message)),
            "message_seconds": float(self.waited[self.message].sum()),
            "num_legs": len(legs),
            "legs": list(map(str, shown)),
        }

    def _action(self, i: int) -> Action:
        schedule = self.schedule
        return Action(int(schedule.stage[i]), Op(int(schedule.op[i])), int(schedule.microbatch[i]))


def trace(schedule: Schedule, start: Floats, end: Floats, message: Mask, source: Ints | None = None) -> CriticalPath:
    """Follow the path back from the action that ends last.

    Args:
        source: ``[num_actions]`` what each action waited for, where that is not the schedule's own.
        start, end: ``[num_actions]`` when every action of ``schedule`` ran.
        message: ``[num_actions]`` true where an action waited longer for its input than for its rank.
    """
    source = schedule.source if source is None else source
    before = np.where(message, source, np.arange(-1, schedule.num_actions - 1, dtype=np.int32))
    before[schedule.offsets[:-1]] = np.where(message, source, -1)[schedule.offsets[:-1]]
    back = array("i", before.tobytes())
    i, path = int(np.argmax(end)), array("i")
    while i >= 0:
        path.append(i)
        i = back[i]
    at = np.frombuffer(path, dtype=np.int32)[::-1].copy()
    return CriticalPath(schedule, at, message[at], start[at], end[at])
