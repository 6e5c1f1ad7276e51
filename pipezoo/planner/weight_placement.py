"""Where the weight gradients go, when the order of everything else is given. Linear: a search can be built on it.

    given      rank 1    F0 . . F1 I0 . I1 .              the order of F and I, and so of all messages
    placed               F0 . . F1 I0 W0 I1 W1            W in the gaps, late as memory allows, early as time allows

Ranks are walked as the simulator walks them. Before an item whose input arrives at ``a`` a rank runs weight gradients

    that end by ``a``;                                    they cost nothing
    that end by min(a + leeway, latest start of the item), where it would have to wait anyhow;
    without which the item does not fit into memory       (F alone grows)

and the rest at its end. The latest starts come from the same walk backwards, from the moment when each rank should end:
``latest``. So a weight gradient may delay what has time, and never what a good end depends on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipezoo.planner.problem import ROUNDING, Orders, Problem

NEVER = float("inf")
NONE = -1  # no time yet, no rank, nothing to wait for


class Placed(NamedTuple):
    """An order with its weight gradients: when its slowest rank's optimizer step ends, its longest span, itself."""

    step: float
    span: float
    orders: Orders


def place(problem: Problem, given: Orders, leeway: float, latest: list[float] | None = None) -> Placed | None:
    """Put all weight gradients into an order of F and I.

    Args:
        given: per rank its F and I items.
        leeway: how long a weight gradient may delay the item after it, where the rank would wait anyhow; a share of its
            own time.
        latest: the latest start of every item, of :func:`latest_starts`; None: no item has one.

    Returns:
        None where the order does not end: a rank's memory is full and nothing on it could be freed.
    """
    play = _Walk(problem, leeway, latest, len(given))
    ranks = [_run(play, rank, order) for rank, order in enumerate(given)]
    awake, waiter = play.awake, play.waiter
    try:
        while awake:
            rank = awake.pop()
            if (wanted := next(ranks[rank], NONE)) != NONE:
                waiter[wanted] = rank
    except _Full:
        return None
    if NONE in play.ended:
        return None
    step = max(end + after for end, after in zip(play.ended, problem.after, strict=True))
    span = max(end - begin for begin, end in zip(play.begun, play.ended, strict=True))
    return Placed(step, span, play.lines)


class _Full(Exception):
    """A rank's memory is full, and nothing on it could be freed."""


class _Walk:
    """What the ranks of one play share. ``end`` and ``waiter`` are by item, the rest by rank.

    Args:
        end: when each item ended; NONE: not yet. ``waiter``: the rank that waits for that; NONE: nobody.
        awake: the ranks that can go on.
        lines: what each rank has run; ``begun`` and ``ended``, from when to when.
    """

    def __init__(self, problem: Problem, leeway: float, latest: list[float] | None, num_ranks: int) -> None:
        self.problem, self.leeway, self.latest = problem, leeway, latest
        self.end, self.waiter = [float(NONE)] * len(problem.source), [NONE] * len(problem.source)
        self.awake = list(range(num_ranks - 1, -1, -1))
        self.lines: Orders = [[] for _ in range(num_ranks)]
        self.begun, self.ended = [float(NONE)] * num_ranks, [float(NONE)] * num_ranks


def _run(play: _Walk, rank: int, order: list[int]) -> Iterator[int]:
    """One rank from its first item to its last; yields an item whose end it has to wait for."""
    problem, leeway, latest, end = play.problem, play.leeway, play.latest, play.end
    took, lags, grows, frees, sources = problem.took, problem.lag, problem.grows, problem.frees, problem.source
    m, half, most = problem.num_microbatches, len(sources) // 2, problem.limit[rank] * (1 + ROUNDING)
    waiter, awake, line, skips = play.waiter, play.awake, play.lines[rank], problem.skips_into
    queue: list[int] = []  # weight gradients, in the order of their input gradients; the first z are done
    z, now, locked, begun = 0, 0.0, 0.0, float(NONE)
    for item in order:
        stage = item // m
        arrived = 0.0
        if (source := sources[item]) >= 0:
            if (arrived := end[source]) < 0:
                yield source
                arrived = end[source]
            arrived += lags[stage]
            if skips:
                for far, lag in skips[stage]:
                    arrived = max(arrived, end[item + far] + lag)
        if z < len(queue) and (now < arrived or item < half):
            until = arrived
            if now < arrived:
                until += leeway * took[queue[z] // m]
                if latest is not None and latest[item] < until:
                    until = latest[item]
            need = locked + grows[stage]
            while z < len(queue):
                weight = queue[z] // m
                after = now + took[weight]
                if need <= most and after > arrived and (now >= arrived or after > until):
                    break
                need -= frees[weight]
                locked -= frees[weight]
                now = after
                line.append(queue[z])
                z += 1
        locked += grows[stage]
        if locked > most:
            raise _Full
        if arrived > now:
            now = arrived
        if begun < 0:
            begun = now
        now += took[stage]
        end[item] = now
        line.append(item)
        if item >= half:
            locked -= frees[stage]
            queue.append(item + half)
        if (sleeper := waiter[item]) >= 0:
            awake.append(sleeper)
    for weight in queue[z:]:
        now += took[weight // m]
    line += queue[z:]
    play.begun[rank], play.ended[rank] = begun, now


def latest_starts(problem: Problem, given: Orders, ends: list[float]) -> list[float]:
    """``[2 S m]``: when each F and I must start at the latest for every rank to end by ``ends``, W left out.

    One weight gradient is left in: the last input gradient of a rank is never its last action.
    """
    m, size = problem.num_microbatches, problem.num_stages
    took, lags, skips = problem.took, problem.lag, problem.skips_out_of
    half, top = size * m, size * m - m
    start = [NEVER] * (2 * half)
    known = [False] * (2 * half)
    waiter = [-1] * (2 * half)
    head = [len(order) - 1 for order in given]
    now = [
        end - took[order[-1] // m + size] if order[-1] >= half else end for end, order in zip(ends, given, strict=True)
    ]
    awake = list(range(problem.num_ranks))
    while awake:
        rank = awake.pop()
        order, i, t = given[rank], head[rank], now[rank]
        while i >= 0:
            item = order[i]
            if item < half:
                follower, lag = (item + m, item // m + 1) if item < top else (item + half, -1)
            else:
                follower, lag = (item - m, item // m - 1) if item >= half + m else (-1, -1)
            if follower >= 0:
                if not known[follower]:
                    waiter[follower] = rank
                    break
                due = start[follower] - (lags[lag] if lag >= 0 else 0.0)
                if due < t:
                    t = due
                for far, late in skips[item // m] if skips else ():
                    t = min(t, start[item + far] - late)
            t -= took[item // m]
            start[item] = t
            known[item] = True
            if (sleeper := waiter[item]) >= 0:
                awake.append(sleeper)
            i -= 1
        head[rank], now[rank] = i, t
    return start
