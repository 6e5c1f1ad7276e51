"""A timeline: when each action ran on its rank. Predicted and measured are the same thing, told apart by ``source``.

rank 0 |0F0|0F1|   .   |0B0|0B1|          span = one action with its start and end
rank 1 |   |1F0|1B0|1F1|1B1|   .          bubble = the idle share of all ranks' time
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipezoo.schedule.action import Op
from pipezoo.schedule.display import drawn
from pipezoo.schedule.schedule import Schedule

MOST_RANKS = 2**20


@dataclass(frozen=True, eq=False, repr=False)
class Timeline:
    """Spans as arrays, all ``[num_spans]``.

    Args:
        rank, stage, op, microbatch: what ran where; ``op`` holds codes of :class:`~pipezoo.schedule.action.Op`.
        start, end: when it ran, counted from any one moment that all ranks share.
        num_ranks: how many ranks there were, those without a span included.
        source: ``"predicted"`` or ``"measured"``.
        unit: what the times count: ``"s"``, or ``"unit"`` where the costs are of no machine.
    """

    rank: NDArray[np.int32]
    stage: NDArray[np.int32]
    op: NDArray[np.int8]
    microbatch: NDArray[np.int32]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    num_ranks: int
    source: str
    unit: str = "s"

    @classmethod
    def of(
        cls, schedule: Schedule, start: NDArray[np.float64], end: NDArray[np.float64], source: str, unit: str = "s"
    ) -> Timeline:
        """The timeline of a schedule whose ``i``-th action ran from ``start[i]`` to ``end[i]``."""
        columns = (schedule.rank, schedule.stage, schedule.op, schedule.microbatch)
        return Timeline(*columns, start, end, schedule.num_ranks, source, unit)

    @property
    def num_spans(self) -> int:
        return len(self.start)

    @property
    def makespan(self) -> float:
        """From the first start to the last end of the whole pipeline."""
        return float(self.end.max() - self.start.min()) if self.num_spans else 0.0

    @cached_property
    def computing(self) -> Timeline:
        """The spans of computations alone, without those that belong to a stage and no microbatch."""
        if self.op.max(initial=0) < Op.UNSHARD:
            return self
        chosen = self.op < Op.UNSHARD
        return replace(
            self,
            rank=self.rank[chosen],
            stage=self.stage[chosen],
            op=self.op[chosen],
            microbatch=self.microbatch[chosen],
            start=self.start[chosen],
            end=self.end[chosen],
        )

    def check(self) -> None:
        """Raise ValueError where this cannot be one: a time that is not finite, a rank or an op that is none."""
        if not (np.isfinite(self.start).all() and np.isfinite(self.end).all()):
            raise ValueError(f"{self.source}: a time is not finite")
        if not (self.rank.min(initial=0) >= 0 and self.rank.max(initial=-1) < self.num_ranks <= MOST_RANKS):
            raise ValueError(f"{self.source}: a rank is out of range")
        if not (self.op.min(initial=0) >= 0 and self.op.max(initial=0) < Op.OVERLAP_F_B):
            raise ValueError(f"{self.source}: an op that is none")
        if self.stage.min(initial=0) < 0 or self.microbatch.min(initial=0) < -1:
            raise ValueError(f"{self.source}: a stage or a microbatch is out of range")

    def busy(self) -> NDArray[np.float64]:
        """``[num_ranks]``: how long each rank computed; where two of its spans overlap, that time counts once."""
        return self._busy

    @cached_property
    def _busy(self) -> NDArray[np.float64]:
        start = self.start
        if not self.in_order:
            start = start.copy()
            for rank in range(self.num_ranks):
                own = np.flatnonzero(self.rank == rank)
                own = own[np.argsort(start[own], kind="stable")]
                covered = np.maximum.accumulate(self.end[own])
                start[own[1:]] = np.clip(covered[:-1], start[own[1:]], np.maximum(self.end[own[1:]], start[own[1:]]))
        return np.bincount(self.rank, weights=self.end - start, minlength=self.num_ranks).astype(np.float64)

    @cached_property
    def in_order(self) -> bool:
        """True where spans come by rank and by time and none starts before the one before it ended."""
        later = (self.start[1:] >= self.end[:-1]) & (self.rank[1:] == self.rank[:-1])
        return bool((later | (self.rank[1:] > self.rank[:-1])).all())

    def own_span(self) -> NDArray[np.float64]:
        """``[num_ranks]``: from each rank's own first start to its own last end."""
        first = np.full(self.num_ranks, np.inf)
        last = np.full(self.num_ranks, -np.inf)
        if self.in_order:
            edge = np.flatnonzero(np.diff(self.rank, prepend=-1, append=self.num_ranks))
            first[self.rank[edge[:-1]]], last[self.rank[edge[:-1]]] = self.start[edge[:-1]], self.end[edge[1:] - 1]
        else:
            np.minimum.at(first, self.rank, self.start)
            np.maximum.at(last, self.rank, self.end)
        return np.where(np.isfinite(first), last - first, 0.0)

    @property
    def bubble(self) -> float:
        """The idle share of ``num_ranks`` times the makespan, in [0, 1): what a synchronous optimizer step pays.

        Of the computations: what replicas and shards spend on each other is no part of the pipeline.
        """
        return self.computing._idle_share(self.computing.makespan)

    @property
    def span_bubble(self) -> float:
        """The idle share of ``num_ranks`` times the longest time from a rank's own first start to its own last end, in
        [0, 1): the zero-bubble papers' bubble rate."""
        return self.computing._idle_share(float(self.computing.own_span().max(initial=0.0)))

    def bubbles(self) -> dict[str, float]:
        """Both, as files hold them: ``makespan`` and ``span``."""
        return {"makespan": self.bubble, "span": self.span_bubble}

    def _idle_share(self, length: float) -> float:
        return max(0.0, 1.0 - self._work / (self.num_ranks * length)) if length > 0 else 0.0

    @cached_property
    def _work(self) -> float:
        return float(self.busy().sum())

    def save(self, path: str | Path) -> Path:
        """Write the timeline to a file, and return its path.

        Args:
            path: ends in ``.svg`` or ``.png`` (a picture; PNG needs Pillow), ``.html`` (a page to zoom in), ``.json``
                (a trace for Perfetto), ``.npz`` (the arrays) or ``.txt`` (columns of letters).

        Raises:
            ConfigError: another ending, or Pillow is missing.
            OutputError: the file cannot be written.
        """
        return Path(drawn("save_timeline", self, Path(path)))

    def __repr__(self) -> str:
        return (
            f"Timeline({self.source}, {self.num_ranks} ranks, {self.num_spans} spans, "
            f"makespan {self.makespan:.6g} {self.unit}, bubble {self.bubble:.1%})"
        )

    def __str__(self) -> str:
        """The timeline in columns of letters, as wide as the terminal."""
        return drawn("timeline_text", self)

    def _repr_svg_(self) -> str:
        return drawn("timeline_svg", self)

    def shifted(self) -> Timeline:
        """The same with its first start at 0."""
        zero = self.start.min() if self.num_spans else 0.0
        return replace(self, start=self.start - zero, end=self.end - zero) if zero else self
