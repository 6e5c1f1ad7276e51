"""Orders of F and I with one stage a rank: a warm-up of some forwards, then forwards and input gradients in turn.

    depth 5, 3, 1    rank 0  F F F F F I F I F I ...     the first gradient is back at rank r after its F and I and
                     rank 1    F F F I F I F I ...       those of all ranks behind it: so many F keep it busy;
                     rank 2      F I F I F I ...         more cost memory, fewer leave a gap

With weight gradients placed for the costs (``weights.py``) these are ZB-1p and ZB-2p of arXiv:2401.10241, and more.
"""

from __future__ import annotations

from pipezoo.planner.problem import ROUNDING, Orders, Problem


def orders_of(depths: list[int], num_microbatches: int) -> Orders:
    """The items of every rank; ``depths[rank]`` is how many forwards it starts with."""
    m, size = num_microbatches, len(depths)
    orders = []
    for rank, depth in enumerate(depths):
        forwards = list(range(rank * m, rank * m + m))
        inputs = list(range((size + rank) * m, (size + rank) * m + m))
        order = forwards[:depth]
        for forward, back in zip(forwards[depth:], inputs, strict=False):
            order += (back, forward)
        orders.append(order + inputs[m - depth :])
    return orders


def candidates(problem: Problem) -> list[list[int]]:
    """Depths to try, the promising ones first; none exceeds what a rank can hold or the depth of the rank before."""
    fits = [_fits(problem, rank) for rank in range(problem.num_ranks)]
    lasts = [problem.took[rank] for rank in range(problem.num_ranks)]
    waits = [problem.first(rank, 1) - problem.first(rank, 0) for rank in range(problem.num_ranks)]
    busy = [wait / last if last else float(fit) for wait, last, fit in zip(waits, lasts, fits, strict=True)]
    found: list[list[int]] = []
    for deepest in _deepest(busy[0], fits[0], problem.num_ranks):
        for ease in (0.0, 0.5):
            scale = (deepest - 1) / (busy[0] - 1) if busy[0] > 1 else 0.0
            depths = [
                max(1, min(fit, int(1 + ease + scale * (own - 1) + ROUNDING)))
                for own, fit in zip(busy, fits, strict=True)
            ]
            for rank in range(len(depths) - 2, -1, -1):
                depths[rank] = min(fits[rank], max(depths[rank], depths[rank + 1]))
            if depths not in found:
                found.append(depths)
    return found


def _fits(problem: Problem, rank: int) -> int:
    """How many microbatches a rank can hold."""
    grows, limit = problem.grows[rank], problem.limit[rank] * (1 + ROUNDING)
    most = problem.num_microbatches
    return max(1, int(min(most, limit / grows))) if grows > 0 else most


def _deepest(busy: float, fit: int, num_ranks: int) -> list[float]:
    """Depths of the first rank: until its first gradient comes, 1F1B's, and around and between them."""
    wanted = [busy, busy + 0.9, busy - 0.9, float(num_ranks), 1.5 * num_ranks, (busy + num_ranks) / 2, 1.25 * num_ranks]
    return list(dict.fromkeys(min(float(fit), max(1.0, depth)) for depth in wanted))
