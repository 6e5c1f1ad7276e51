"""The one loop that plays a schedule: an action starts when its rank is free and its input has arrived.

    rank 0   0F0 0F1 ...            start(1F0) = max(end of the action before it on rank 1,
                \\                              end(0F0) + lag)
    rank 1       1F0 ...            end(1F0)   = start(1F0) + cost

Every action has two things to wait for at most: the action before it on its own rank, and one *source* on any
rank. So each is visited once, and the work is linear. Two ways to walk, with equal results to the last bit: a
worklist in plain Python where ranks are few, and a wavefront over all ranks at once in numpy where they are many.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

NEVER = float("inf")
FEW_RANKS = 32  # below this the plain worklist is the faster of the two (benchmarks/simulator.py)


class Deadlock(Exception):
    """No rank can go on. ``heads[rank]`` is the index of the action it waits at, or -1 where it is done."""

    def __init__(self, heads: Sequence[int]) -> None:
        super().__init__("no rank can go on")
        self.heads = list(heads)


Also = Sequence[tuple[NDArray[np.int32], NDArray[np.float64]]]


def run_event_loop(
    offsets: NDArray[np.int64], source: NDArray[np.int32], cost: ArrayLike, lag: ArrayLike = 0.0, also: Also = ()
) -> NDArray[np.float64]:
    """The end of every action, in the unit of ``cost``, when all ranks start at 0.

    Args:
        offsets: ``[num_ranks + 1]``; the actions of a rank are ``offsets[rank] : offsets[rank + 1]``, in order.
        source: ``[num_actions]``; the index of the action that each one's input comes from, -1 for none.
        cost: ``[num_actions]`` or a scalar; how long each action takes.
        lag: ``[num_actions]`` or a scalar; how long after its source's end the input arrives.
        also: further sources and their lags, ``[num_actions]`` each.

    Raises:
        Deadlock: the order deadlocks.
    """
    if also:
        size = source.shape
        columns = [(source, np.broadcast_to(lag, size)), *also]
        return _many_sources(offsets, columns, np.broadcast_to(cost, size))
    walk = _worklist if len(offsets) - 1 < FEW_RANKS else _wavefront
    size = source.shape
    return walk(offsets, source, np.broadcast_to(cost, size), np.broadcast_to(lag, size))


def check_it_ends(offsets: NDArray[np.int64], source: NDArray[np.int32], rank: NDArray[np.int32]) -> None:
    """Like :func:`run_event_loop` without times, so only whether the order ends; ``rank`` is the rank of every action.

    Raises:
        Deadlock: the order deadlocks.
    """
    if len(offsets) - 1 < FEW_RANKS // 2:
        _run_one_by_one(offsets, source)
        return
    head, stop = offsets[:-1].copy(), offsets[1:]
    padded = np.append(source, np.int32(-1))  # a rank that is done looks at the place behind its last action
    left = len(source)
    while left:
        needs = padded.take(head)
        ready = head.take(rank.take(needs)) > needs  # a source of -1 is behind every head
        ready &= head < stop
        if not (moved := np.count_nonzero(ready)):
            raise Deadlock(np.where(head < stop, head, -1).tolist())
        head += ready
        left -= moved


def _run_one_by_one(offsets: NDArray[np.int64], source: NDArray[np.int32]) -> None:
    """:func:`check_it_ends` where ranks are few: :func:`_worklist` without the clock."""
    sources = _column("i", source)
    done = bytearray(len(sources) + 1)
    done[-1] = True  # where a source of -1 looks
    head, stop = offsets[:-1].tolist(), offsets[1:].tolist()
    sleeper: dict[int, list[int]] = {}
    awake = list(range(len(head)))
    while awake:
        rank = awake.pop()
        i, last = head[rank], stop[rank]
        while i < last and done[sources[i]]:
            done[i] = True
            if i in sleeper:
                awake += sleeper.pop(i)
            i += 1
        head[rank] = i
        if i < last:
            sleeper.setdefault(sources[i], []).append(rank)
    if sleeper:
        raise Deadlock([i if i < last else -1 for i, last in zip(head, stop, strict=True)])


def _worklist(
    offsets: NDArray[np.int64], source: NDArray[np.int32], cost: NDArray[np.float64], lag: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Run each rank until it waits; the action it waits for wakes it."""
    sources, costs, lags = _column("i", source), _column("d", cost), _column("d", lag)
    num_ranks = len(offsets) - 1
    head, stop = offsets[:-1].tolist(), offsets[1:].tolist()
    free = [0.0] * num_ranks
    end = _column("d", np.full(len(source), NEVER))
    sleeper: dict[int, list[int]] = {}
    awake = list(range(num_ranks))
    while awake:
        rank = awake.pop()
        i, last, now = head[rank], stop[rank], free[rank]
        while i < last:
            if (origin := sources[i]) >= 0:
                if (sent := end[origin]) == NEVER:
                    sleeper.setdefault(origin, []).append(rank)
                    break
                if (arrived := sent + lags[i]) > now:
                    now = arrived
            now += costs[i]
            end[i] = now
            if i in sleeper:
                awake += sleeper.pop(i)
            i += 1
        head[rank], free[rank] = i, now
    if sleeper:
        raise Deadlock([i if i < last else -1 for i, last in zip(head, stop, strict=True)])
    return np.frombuffer(end, dtype=np.float64)


def _many_sources(offsets: NDArray[np.int64], columns: Also, cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """:func:`_worklist` where an action may wait for several others."""
    needs: list[list[tuple[int, float]]] = [[] for _ in range(len(cost))]
    for source, lag in columns:
        for i in np.flatnonzero(source >= 0).tolist():
            needs[i].append((int(source[i]), float(lag[i])))
    head, stop, costs = offsets[:-1].tolist(), offsets[1:].tolist(), cost.tolist()
    free = [0.0] * len(head)
    end = [NEVER] * len(costs)
    sleeper: dict[int, list[int]] = {}
    awake = list(range(len(head)))
    while awake:
        rank = awake.pop()
        i, last, now = head[rank], stop[rank], free[rank]
        while i < last:
            missing = next((origin for origin, _ in needs[i] if end[origin] == NEVER), None)
            if missing is not None:
                sleeper.setdefault(missing, []).append(rank)
                break
            now = max([now, *(end[origin] + late for origin, late in needs[i])]) + costs[i]
            end[i] = now
            awake += sleeper.pop(i, [])
            i += 1
        head[rank], free[rank] = i, now
    if sleeper:
        raise Deadlock([i if i < last else -1 for i, last in zip(head, stop, strict=True)])
    return np.array(end)


def _column(kind: str, values: NDArray[Any]) -> array[Any]:
    """The values for a loop in Python: as quick as a list, and no larger than they are."""
    return array(kind, values.tobytes())


def _wavefront(
    offsets: NDArray[np.int64], source: NDArray[np.int32], cost: NDArray[np.float64], lag: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Advance every rank that can by one action, all of them in one numpy step."""
    end = np.full(len(source) + 1, np.inf)
    end[-1] = -np.inf  # what a source of -1 finds: something that arrived before everything
    head, stop = offsets[:-1].copy(), offsets[1:]
    free = np.zeros(len(head))
    live = np.flatnonzero(head < stop)
    while live.size:
        at = head[live]
        arrived = end[source[at]] + lag[at]
        ready = arrived < np.inf
        if not ready.all():
            live_now, at, arrived = live[ready], at[ready], arrived[ready]
            if not live_now.size:
                raise Deadlock(np.where(head < stop, head, -1).tolist())
        else:
            live_now = live
        now = np.maximum(free[live_now], arrived) + cost[at]
        end[at] = now
        free[live_now] = now
        head[live_now] = at + 1
        live = live[head[live] < stop[live]]
    return end[:-1]
