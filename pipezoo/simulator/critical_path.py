"""Who waited for whom: the chain of actions that made the pipeline end when it did.

    rank 0 |0F0|0F1|   .   |0B0|0B1|          0F0 -> 1F0 (message) -> 1B0 (rank busy) -> 1F1 (rank busy)
    rank 1     |1F0|1B0|1F1|1B1|                  -> 1B1 (rank busy) -> 0B1 (message)

From the action that ends last, step back to what it had to wait for longest: the action before it on its rank, or the
one whose message it needs. Where both ended at the same moment it is the rank's: a faster message would not help.

    legs      rank 0: 0F0    rank 1: 1F0 .. 1B1 (4 actions)    rank 0: 0B1           a rank after the other, as it goes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from pipezoo.schedule.action import Action, Op
from pipezoo.schedule.schedule import Schedule
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


@dataclass(frozen=True)
class CriticalPath:
    """The path from the first action to the last, in the order of time."""

    steps: Sequence[Step]

    def legs(self) -> list[Leg]:
        """The path rank by rank; there is one leg more than it crosses between ranks."""
        legs = []
        for rank, group in groupby(self.steps, key=lambda step: step.rank):
            steps = list(group)
            computed = sum(step.end - step.start for step in steps)
            legs.append(Leg(rank, steps[0].action, steps[-1].action, len(steps), computed))
        return legs

    def summary(self) -> dict[str, Any]:
        """Plain numbers: how long the path computes (in all, and by op), and waits for messages, and where it goes.

        Of more than ``MOST_LEGS`` legs it lists the first and the last ones; ``num_legs`` counts all.
        """
        by_op: Counter[str] = Counter()
        by_rank: Counter[int] = Counter()
        for step in self.steps:
            by_op[step.action.op.name] += step.end - step.start  # type: ignore[assignment]
            by_rank[step.rank] += step.end - step.start  # type: ignore[assignment]
        messages = [step.waited for step in self.steps if step.waited_for == "message"]
        legs = self.legs()
        shown = legs if len(legs) <= MOST_LEGS else [*legs[: MOST_LEGS // 2], *legs[-MOST_LEGS // 2 :]]
        return {
            "num_actions": len(self.steps),
            "compute_seconds": float(sum(by_op.values())),
            "compute_seconds_by_op": dict(sorted(by_op.items())),
            "compute_seconds_by_rank": {str(rank): by_rank[rank] for rank in sorted(by_rank)},
            "num_messages": len(messages),
            "message_seconds": float(sum(messages)),
            "num_legs": len(legs),
            "legs": list(map(str, shown)),
        }


def trace(schedule: Schedule, start: Floats, end: Floats, waits: Callable[[int], tuple[float, float]]) -> CriticalPath:
    """Follow the path; the arguments are those of :class:`~pipezoo.simulator.simulate.Simulation`."""
    firsts = set(schedule.offsets[:-1].tolist())
    i: int | None = int(np.argmax(end))
    before: int | None
    steps = []
    while i is not None:
        free, arrived = waits(i)
        if arrived > free:
            why, before = "message", int(schedule.source[i])
        else:
            why, before = ("nothing", None) if i in firsts else ("rank", i - 1)
        waited = float(start[i] - (0.0 if before is None else end[before]))
        action = Action(int(schedule.stage[i]), Op(int(schedule.op[i])), int(schedule.microbatch[i]))
        steps.append(Step(action, int(schedule.rank[i]), float(start[i]), float(end[i]), why, waited))
        i = before
    return CriticalPath(steps[::-1])
