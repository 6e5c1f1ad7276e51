"""Weight gradients moved one at a time, in an order that has them all: what placing them in one walk leaves undone.

before     rank 1    F0 F1 I0 W0 . F2 I1 W1            a weight gradient drawn by lot goes over a few of its neighbours;
after                F0 F1 I0 . F2 W0 I1 W1            the change stays unless the step ends later for it

F and I keep their sequence, so messages stay, and memory stays within its limit. A change that does not move the end is
kept as well, even if its rank ends a little later: that is how several weight gradients come to move together. Every
try plays the whole order once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from pipezoo.planner.problem import ROUNDING, Orders, Problem
from pipezoo.planner.weight_placement import Placed

REACH = (1, 1, 1, 2, 3, 5)  # over how many neighbours a weight gradient goes
WORK = 8_000_000  # items that are played at most, whatever the number of moves: two seconds or so
CLOSE = 1e-9  # relative


class EndTimes(NamedTuple):
    """The end of the step, and what all ranks' ends sum up to: the smaller, the more room there is."""

    step: float
    total: float


def move_weight_grads(
    problem: Problem, orders: Orders, iterations: int, seed: int = 0, is_over: Callable[[], bool] = lambda: False
) -> Placed:
    """The orders with their weight gradients moved to where the step ends earlier, if there are such places.

    Args:
        orders: F, I and W of every rank, within the memory of the problem.
        moves: how many weight gradients are tried elsewhere, at most; fewer where an order is long.
        is_over: asked before each; True ends the search.
    """
    chance = random.Random(seed)
    orders = [list(order) for order in orders]
    first_weight = 2 * problem.num_stages * problem.num_microbatches
    least = (problem.bound + min(problem.after)) * (1 + CLOSE)
    best = end_times(problem, orders)[0]
    tries = min(iterations, WORK // sum(map(len, orders)))
    while tries > 0 and best.step > least and not is_over():
        rank = chance.randrange(len(orders))
        given = orders[rank]
        at = chance.randrange(len(given))
        to = at + chance.choice((-1, 1)) * chance.choice(REACH)
        if given[at] < first_weight or not 0 <= to < len(given):
            continue
        tries -= 1
        orders[rank] = _moved(given, at, to)
        if _is_allowed(problem, rank, orders[rank], at, to):
            ends = end_times(problem, orders)[0]
            later = problem.took[given[at] // problem.num_microbatches]
            if ends.step < best.step or (ends.step == best.step and ends.total <= best.total + later):
                best = ends
                continue
        orders[rank] = given
    ends, span = end_times(problem, orders)
    return Placed(ends.step, span, orders)


def _moved(order: list[int], at: int, to: int) -> list[int]:
    order = list(order)
    order.insert(to, order.pop(at))
    return order


def _is_allowed(problem: Problem, rank: int, order: list[int], at: int, to: int) -> bool:
    """Whether the weight gradient, now at ``to``, is behind its input gradient, and everything fits into memory."""
    m, half = problem.num_microbatches, problem.num_stages * problem.num_microbatches
    if to < at and order[to] - half in order[to + 1 : at + 1]:
        return False
    locked, most = 0.0, problem.limit[rank] * (1 + ROUNDING)
    for item in order:
        locked += problem.grows[item // m]
        if locked > most:
            return False
        locked -= problem.frees[item // m]
    return True


def end_times(problem: Problem, orders: Orders) -> tuple[EndTimes, float]:
    """When the ranks end if every item runs as soon as it can; and the longest span of a rank.

    A step that never ends is infinite.
    """
    m, half = problem.num_microbatches, problem.num_stages * problem.num_microbatches
    took, lags, sources, skips = problem.took, problem.lag, problem.source, problem.skips_into
    end, waiter = [-1.0] * (2 * half), [-1] * (2 * half)
    head, now, begun = [0] * len(orders), [0.0] * len(orders), [-1.0] * len(orders)
    awake = list(range(len(orders) - 1, -1, -1))
    while awake:
        rank = awake.pop()
        order, t = orders[rank], now[rank]
        for i in range(head[rank], len(order)):
            item = order[i]
            if item < 2 * half:
                if (source := sources[item]) >= 0:
                    if (made := end[source]) < 0:
                        waiter[source], head[rank] = rank, i
                        break
                    t = max(t, made + lags[item // m])
                    for far, late in skips[item // m] if skips else ():
                        t = max(t, end[item + far] + late)
                if begun[rank] < 0:
                    begun[rank] = t
                t += took[item // m]
                end[item] = t
                if (sleeper := waiter[item]) >= 0:
                    awake.append(sleeper)
            else:
                t += took[item // m]
        else:
            head[rank] = len(order)
        now[rank] = t
    if any(at < len(order) for at, order in zip(head, orders, strict=True)):
        return EndTimes(float("inf"), float("inf")), float("inf")
    ends = [t + after for t, after in zip(now, problem.after, strict=True)]
    return EndTimes(max(ends), sum(ends)), max(t - start for t, start in zip(now, begun, strict=True))
