"""Contiguous partitions: n items in a row, dealt to k groups that keep the row's order.

Both functions return the groups as ranges of item indices:

    items     0 1 2 3 4 5 6           7 items, 3 groups
    evenly   [0 1 2|3 4|5 6]          sizes differ by at most one, the larger ones first

    weights   9 1 1 1 4 4             6 items, 3 groups
    balanced [9|1 1|1 4 4]            the heaviest group (9) is as light as any partition allows
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from pipezoo.errors import ArgumentError


def group_evenly(num_items: int, num_groups: int) -> list[range]:
    """Deal `num_items` items to `num_groups` groups whose sizes differ by at most one, larger groups first.

    Raises ValueError unless 1 <= num_groups <= num_items: no group is empty.
    """
    _check_groups(num_items, num_groups)
    size, extra = divmod(num_items, num_groups)
    bounds = accumulate((size + (group < extra) for group in range(num_groups)), initial=0)
    return [range(start, stop) for start, stop in pairwise(bounds)]


def group_balanced(weights: Sequence[float], num_groups: int) -> list[range]:
    """Deal items of the given `weights` to groups so that the heaviest group is as light as possible.

    Exact, by the linear partition programme (Skiena, The Algorithm Design Manual, section 10.7):

        best[k][n] = min over c of max(best[k-1][c], weight of items c..n-1)

    The left term never falls and the right one never rises as c grows, so the minimum lies where they cross, and the
    crossing only moves right as n grows: O(items x groups) in all. Among equally good partitions the one with
    the leftmost last cut is returned, so the result is a function of the weights alone.

    Raises ValueError for a negative, infinite or NaN weight and unless 1 <= num_groups <= len(weights).
    """
    num_items = len(weights)
    _check_groups(num_items, num_groups)
    for item, weight in enumerate(weights):
        if not (math.isfinite(weight) and weight >= 0):
            raise ArgumentError(f"weights[{item}]", weight, "must be finite and >= 0")
    before = list(accumulate(weights, initial=0))  # before[n]: weight of the first n items

    best = list(before)
    cuts: list[list[int]] = []
    for group in range(1, num_groups):
        best, cut = _add_group(best, before, group)
        cuts.append(cut)

    stops = [num_items]
    for cut in reversed(cuts):
        stops.append(cut[stops[-1]])
    return [range(start, stop) for start, stop in pairwise([0, *reversed(stops)])]


def _add_group(best: list[float], before: list[float], group: int) -> tuple[list[float], list[int]]:
    """One row of the programme: `best` of `group` groups -> that of `group + 1`, and where its last group starts."""
    num_items = len(best) - 1
    row, cut = [math.inf] * (num_items + 1), [0] * (num_items + 1)
    c = group  # the groups before the last one hold at least one item each
    for n in range(group + 1, num_items + 1):
        while c + 1 < n and best[c] < before[n] - before[c]:
            c += 1
        candidates = (c - 1, c) if c > group else (c,)
        row[n], cut[n] = min((max(best[i], before[n] - before[i]), i) for i in candidates)
    return row, cut


def _check_groups(num_items: int, num_groups: int) -> None:
    if not 1 <= num_groups <= num_items:
        raise ArgumentError("num_groups", num_groups, f"{num_items} items make 1..{num_items} groups")
