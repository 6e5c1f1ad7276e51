"""The order in which one process runs the actions of several ranks: each microbatch as far as it goes.

    by time       0F0  1F0 0F1  2F0 1F1 0F2  2B0 1F2 0F3      a stage, then another one, each with cold caches
    depth first   0F0 1F0 2F0 2B0  0F1 1F1 2F1  0F2 1F2       what was just made is used at once

Every rank keeps its own order, and with it what it holds at each moment. Only how the ranks are merged changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from pipezoo.schedule.action import Action, Op

BACKWARD = (Op.B, Op.I)


def depth_first(actions: Sequence[Action], stage_to_rank: Sequence[int]) -> list[Action]:
    """The same actions merged anew.

    Args:
        actions: of all ranks in one legal order, without messages.
        stage_to_rank: whose order is kept.
    """
    waiting: dict[int, deque[int]] = {}  # of each rank, the places of its actions
    for place, action in enumerate(actions):
        waiting.setdefault(stage_to_rank[action.stage], deque()).append(place)
    merged: list[Action] = []
    first, done = 0, [False] * len(actions)
    last: Action | None = None
    while len(merged) < len(actions):
        while done[first]:
            first += 1
        place = first if last is None else _next(last, actions, waiting, stage_to_rank, first)
        last = actions[place]
        waiting[stage_to_rank[last.stage]].popleft()
        done[place] = True
        merged.append(last)
    return merged


def _next(
    last: Action,
    actions: Sequence[Action],
    waiting: dict[int, deque[int]],
    stage_to_rank: Sequence[int],
    first: int,
) -> int:
    """What uses what ``last`` made, if its rank does that next; else the first one, which waits for nobody."""
    is_backward = last.op in BACKWARD
    if last.op == Op.F or is_backward:
        stage = last.stage + (-1 if is_backward else 1)
        turns = stage == len(stage_to_rank)
        if stage >= 0 and (queue := waiting[stage_to_rank[last.stage if turns else stage]]):
            found = actions[queue[0]]
            same = found.stage == (last.stage if turns else stage) and found.microbatch == last.microbatch
            if same and (found.op in BACKWARD if is_backward or turns else found.op == Op.F):
                return queue[0]
    return first
