"""From spans to columns of a picture, and from seconds to what people read: shared by every way to draw a timeline."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipezoo.schedule.action import Op
from pipezoo.simulator.timeline import Timeline


def spans_by_rank(timeline: Timeline) -> list[NDArray[np.int64]]:
    """The indices of each rank's spans, in order of time."""
    order = np.arange(timeline.num_spans) if timeline.in_order else np.lexsort((timeline.start, timeline.rank))
    return np.split(order, np.searchsorted(timeline.rank[order], np.arange(1, timeline.num_ranks)))


def ops_by_column(timeline: Timeline, spans: NDArray[np.int64], longest: float, columns: int) -> list[int]:
    """``[columns]``: the op that took most of each column's time on one rank, -1 where idleness did.

        time      |F|I|W|F|I|W|F|I|W|         a column is two thirds of F I W
        columns   |  F|  W|  I|  F|  W|       each op keeps its share

    How long an op ran until t is a line that rises within its spans, so each column is a difference of two points of
    it. What a column leaves out is carried into the next, else the row above could read FFFFIIIIWWWW.

    Args:
        spans: the rank's spans, in order of time; times of the timeline begin at 0.
        longest: the time that all columns make up.
    """
    edges = np.linspace(0.0, longest or 1.0, columns + 1)
    start, end, op = timeline.start[spans], timeline.end[spans], timeline.op[spans]
    share = np.zeros((len(Op) + 1, columns))
    for code in np.unique(op):
        chosen = op == code
        corners = np.column_stack([start[chosen], end[chosen]]).ravel()
        ran = np.cumsum(end[chosen] - start[chosen])
        heights = np.column_stack([np.concatenate([[0.0], ran[:-1]]), ran]).ravel()
        share[code] = np.diff(np.interp(edges, corners, heights, left=0.0))
    share /= edges[1] - edges[0]
    share[-1] = 1.0 - share.sum(axis=0)  # idle, which as an index is also -1
    owed = [0.0] * len(share)
    codes = []
    for column in share.T.tolist():
        present = [code for code, part in enumerate(column) if part > 1e-6]
        for code in present:
            owed[code] += column[code]
        chosen_code = max(present, key=owed.__getitem__)
        owed[chosen_code] -= 1.0
        codes.append(-1 if chosen_code == len(Op) else chosen_code)
    return codes


def round_step(about: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... (and 0.5, 0.2, ...) that is not below ``about`` > 0."""
    power = 10.0 ** math.floor(math.log10(about))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= about * (1 - 1e-9))


def ticks(high: float, about: int, low: float = 0.0) -> list[float]:
    """Round values from ``low`` to ``high``, about as many as asked and never more than twice that."""
    if not high > low:
        return [low]
    step = round_step((high - low) / max(1, about))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]
