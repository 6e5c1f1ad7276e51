"""Which of several orders is nearest to a given one, and where the two part.

    rank 0, here     0F0 0F1 0B0 0F2 0B1 0B2       0F2 and 0B0 are the one pair that runs the other way round there,
    rank 0, there    0F0 0F1 0F2 0B0 0B1 0B2       of 15 pairs of these actions: distance 1/15

The distance is Kendall's: the share of all pairs of actions of one rank that run in the other order. So a step more of
warm-up is near, whatever it moves, and GPipe is far from 1F1B. A full backward counts as its two halves in a row:
orders with and without split backwards compare. Linear but for a logarithm of a rank's actions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipezoo.schedule.action import Action, Op
from pipezoo.schedule.schedule import Schedule

Ints = NDArray[np.int64]


class Divergence(NamedTuple):
    """Where two orders first differ on ``rank``: at its action number ``at`` (from 0) of ours."""

    rank: int
    at: int
    here: Action
    there: Action


class NearestSchedule(NamedTuple):
    """Another order of the same work: ``crossed`` of ``pairs`` run the other way round there. ``divergences`` has a
    rank at most once."""

    schedule: Schedule
    crossed: int
    pairs: int
    divergences: list[Divergence]

    @property
    def distance(self) -> float:
        """In [0, 1]; 0: the same order."""
        return self.crossed / self.pairs if self.pairs else 0.0


def nearest(schedule: Schedule, others: Iterable[Schedule]) -> NearestSchedule | None:
    """The nearest of ``others`` with the same stages on the same ranks and as many microbatches; None: there is none.

    Of several that are equally near, the first.
    """
    own = _halves(schedule)
    best: tuple[int, Schedule, _Halves] | None = None
    for other in others:
        if (other.stage_to_rank, other.num_microbatches) != (schedule.stage_to_rank, schedule.num_microbatches):
            continue
        theirs = _halves(other)
        crossed = _crossed(own, theirs)
        if best is None or crossed < best[0]:
            best = crossed, other, theirs
    if best is None:
        return None
    crossed, other, theirs = best
    return NearestSchedule(other, crossed, _pairs(own), _divergences(own, theirs))


class _Halves(NamedTuple):
    """A schedule's F, I and W, a full backward as I and W in a row, rank after rank.

    ``key`` tells them apart, ``action`` is the place in the schedule's table, ``offsets`` are the ranks'.
    """

    schedule: Schedule
    key: Ints
    action: Ints
    offsets: Ints


def _halves(schedule: Schedule) -> _Halves:
    schedule = schedule.compute_only()
    times = 1 + (schedule.op == Op.B)
    action = np.repeat(np.arange(schedule.num_actions), times)
    kind = np.array([0, 1, 1, 2])[schedule.op[action]]
    kind[1:][action[1:] == action[:-1]] = 2  # the second half of a full backward
    key = (schedule.stage[action] * 3 + kind) * schedule.num_microbatches + schedule.microbatch[action]
    offsets = np.concatenate([[0], np.cumsum(times)])[schedule.offsets]
    return _Halves(schedule, key, action, offsets)


def _pairs(halves: _Halves) -> int:
    sizes = np.diff(halves.offsets)
    return int((sizes * (sizes - 1) // 2).sum())


def _crossed(one: _Halves, other: _Halves) -> int:
    return int(_inversions(_as_permutations(one, other)).sum())


def _as_permutations(one: _Halves, other: _Halves) -> Ints:
    """``[num_ranks, 2**k]``: where the other order has each item of ours; short ranks go on as they would."""
    sizes = np.diff(one.offsets)
    width = 1 << int(sizes.max() - 1).bit_length()
    place = np.empty(len(one.key), dtype=np.int64)
    place[other.key] = np.arange(len(other.key)) - np.repeat(other.offsets[:-1], sizes)
    rows = np.tile(np.arange(width), (len(sizes), 1))
    rows[rows < sizes[:, None]] = place[one.key]
    return rows


def _inversions(rows: Ints) -> Ints:
    """``[num_rows]``: in how many pairs of each row, a permutation of ``0 .. 2**k - 1``, the larger stands first.

    Count the pairs of an upper half's value before a lower half's; part the halves, each in its order; and again.
    """
    num_rows, width = rows.shape
    found = np.zeros(num_rows, dtype=np.int64)
    while width > 1:
        width //= 2
        upper = rows >= width
        crossed = np.where(upper, 0, np.cumsum(upper, axis=1)).sum(axis=1)
        found += crossed.reshape(num_rows, -1).sum(axis=1)
        halves = rows[~upper].reshape(-1, width), rows[upper].reshape(-1, width) - width
        rows = np.stack(halves, axis=1).reshape(-1, width)
    return found


def _divergences(one: _Halves, other: _Halves) -> list[Divergence]:
    differ = np.flatnonzero(one.key != other.key)
    ranks, first = np.unique(np.searchsorted(one.offsets, differ, side="right") - 1, return_index=True)
    divergences = []
    for rank, at in zip(ranks.tolist(), differ[first].tolist(), strict=True):
        start = int(one.schedule.offsets[rank])
        divergences.append(Divergence(rank, int(one.action[at]) - start, _action(one, at), _action(other, at)))
    return divergences


def _action(halves: _Halves, at: int) -> Action:
    schedule, i = halves.schedule, int(halves.action[at])
    return Action(int(schedule.stage[i]), Op(int(schedule.op[i])), int(schedule.microbatch[i]))
