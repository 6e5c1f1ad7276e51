"""Where the weight halves go, when the order of everything else is given. Linear: a search can be built on it.

    given      rank 1    F0 . . F1 I0 . I1 .              the order of F and I, and so of all messages
    placed               F0 . . F1 I0 W0 I1 W1            W in the gaps, late as memory allows, early as time allows

Ranks are walked as the simulator walks them. Before an item whose input arrives at ``a`` a rank runs weight halves

    that end by ``a``;                                    they cost nothing
    that end by min(a + leeway, latest start of the item), where it would have to wait anyhow;
    without which the item does not fit into memory       (F alone grows)

and the rest at its end. The latest starts come from the same walk backwards, from the moment when each rank should end:
``latest``. So a weight half may delay what has time, and never what a good end depends on.
"""

from __future__ import annotations

from typing import NamedTuple

from pipezoo.planner.problem import ROUNDING, Orders, Problem

NEVER = float("inf")


class Placed(NamedTuple):
    """An order with its weight halves: when its slowest rank's optimizer step ends, its longest span, itself."""

    step: float
    span: float
    orders: Orders


def place(problem: Problem, given: Orders, leeway: float, latest: list[float] | None = None) -> Placed | None:
    """Put all weight halves into an order of F and I.

    Args:
        given: per rank its F and I items.
        leeway: how long a weight half may delay the item after it, where the rank would wait anyhow; a share of its
            own time.
        latest: the latest start of every item, of :func:`latest_starts`; None: no item has one.

    Returns:
        None where the order does not end: a rank's memory is full and nothing on it could be freed.
    """
    m, half = problem.num_microbatches, problem.num_stages * problem.num_microbatches
    took, lags, grows, frees = problem.took, problem.lag, problem.grows, problem.frees
    sources = problem.source
    end, waiter = [-1.0] * (2 * half), [-1] * (2 * half)
    pending: Orders = [[] for _ in given]  # weight halves, in the order of their input halves
    out: Orders = [[] for _ in given]
    head, placed = [0] * len(given), [0] * len(given)
    now, held, begun = [0.0] * len(given), [0.0] * len(given), [-1.0] * len(given)
    awake = list(range(len(given) - 1, -1, -1))
    while awake:
        rank = awake.pop()
        order, i, t, h = given[rank], head[rank], now[rank], held[rank]
        queue, z, line, most = pending[rank], placed[rank], out[rank], problem.limit[rank] * (1 + ROUNDING)
        while i < len(order):
            item = order[i]
            stage = item // m
            arrived = 0.0
            if (source := sources[item]) >= 0:
                if (arrived := end[source]) < 0:
                    waiter[source] = rank
                    break
                arrived += lags[stage]
            if z < len(queue) and (t < arrived or item < half):
                until = arrived
                if t < arrived:
                    until += leeway * took[queue[z] // m]
                    if latest is not None and latest[item] < until:
                        until = latest[item]
                need = h + grows[stage]
                while z < len(queue):
                    weight = queue[z] // m
                    after = t + took[weight]
                    if need <= most and after > arrived and (t >= arrived or after > until):
                        break
                    need -= frees[weight]
                    h -= frees[weight]
                    t = after
                    line.append(queue[z])
                    z += 1
            h += grows[stage]
            if h > most:
                return None
            if arrived > t:
                t = arrived
            if begun[rank] < 0:
                begun[rank] = t
            t += took[stage]
            end[item] = t
            line.append(item)
            if item >= half:
                h -= frees[stage]
                queue.append(item + half)
            if (sleeper := waiter[item]) >= 0:
                awake.append(sleeper)
            i += 1
        else:
            for weight in queue[z:]:
                t += took[weight // m]
            line += queue[z:]
            z = len(queue)
        head[rank], now[rank], held[rank], placed[rank] = i, t, h, z
    if any(i < len(order) for i, order in zip(head, given, strict=True)):
        return None
    step = max(t + after for t, after in zip(now, problem.after, strict=True))
    return Placed(step, max(t - start for t, start in zip(now, begun, strict=True)), out)


def latest_starts(problem: Problem, given: Orders, ends: list[float]) -> list[float]:
    """``[2 S m]``: when each F and I must start at the latest for every rank to end by ``ends``, W left out.

    One weight half is left in: the last input half of a rank is never its last action.
    """
    m, size = problem.num_microbatches, problem.num_stages
    took, lags = problem.took, problem.lag
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
            t -= took[item // m]
            start[item] = t
            known[item] = True
            if (sleeper := waiter[item]) >= 0:
                awake.append(sleeper)
            i -= 1
        head[rank], now[rank] = i, t
    return start
