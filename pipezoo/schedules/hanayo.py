"""Hanayo: stages laid down in waves, so that a microbatch that turns round at either end never leaves its rank.

Liu et al., "Hanayo: Harnessing Wave-like Pipeline Parallelism for Enhanced Large Model Training Efficiency", SC 2023,
arXiv:2308.15762: one copy of the weights, a wave is two stages a rank

    stages of w = 2 waves on 3 ranks     0 .     . 5 6 .      . 11        rank 0
                                           1   4     7     10             rank 1
                                             2 3       8  9               rank 2

    bubble     one wave, m = p, a backward of two forwards: 4(p-1) units of one stage, 2/3 of 1F1B's; more waves, less
    memory     the activations of 2p-1 microbatches at most; of p where m = p

    The order is what ranks do that obey three rules: backwards before forwards, older microbatches before younger ones,
    and no more than ``in_flight`` microbatches between their first forward and their last backward.

    p=3, m=3, one wave: rank 0 has the stages 0 and 5, rank 1 has 1 and 4, rank 2 has 2 and 3; F and B are of the stage
    on the way down, f and b of the stage on the way up; a backward takes two units

    rank 0  F0 F1 F2 .  .  f0 b0--- f1 b1--- f2 b2--- .  .  B0--- .  .  B1--- .  .  B2---
    rank 1  .  F0 F1 F2 f0 .  f1 .  b0--- f2 b1--- .  B0--- b2--- B1--- .  .  B2---
    rank 2  .  .  F0 f0 F1 f1 F2 f2 .  .  b0--- B0--- b1--- B1--- b2--- B2---
"""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np

from pipezoo.errors import ArgumentError
from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Columns, Schedule
from pipezoo.validators import check_int

_UNITS = {Op.F: 1, Op.B: 2}


def hanayo(num_ranks: int, num_microbatches: int, stages_per_rank: int = 2, in_flight: int | None = None) -> Schedule:
    """The wave order; two stages a rank are one wave.

    Args:
        in_flight: microbatches under way at a time; None: ``2 * num_ranks - 1``.

    Raises:
        ValueError: a count below 1, or an odd number of stages per rank.
    """
    p = check_int("num_ranks", num_ranks, 1)
    m = check_int("num_microbatches", num_microbatches, 1)
    v = check_int("stages_per_rank", stages_per_rank, 1)
    if v % 2:
        raise ArgumentError("stages_per_rank", v, "hanayo lays whole waves, of 2 stages on each rank", (v + 1,))
    limit = 2 * p - 1 if in_flight is None else check_int("in_flight", in_flight, 1)
    down = list(range(p))
    place = [*down, *reversed(down)] * (v // 2)
    return Schedule.from_columns(_columns(_play(place, m, limit)), "hanayo")


Turn = tuple[int, int, int, Op, int]  # what goes first: backwards, older microbatches, then the order of the stages


def _turn(op: Op, stage: int, microbatch: int) -> Turn:
    return (int(op == Op.F), microbatch, -stage if op == Op.F else stage, op, stage)


def _play(place: list[int], num_microbatches: int, limit: int) -> list[list[tuple[Op, int, int]]]:
    """What every rank runs, when a forward takes one unit of time and a backward two."""
    num_ranks, last = max(place) + 1, len(place) - 1
    orders: list[list[tuple[Op, int, int]]] = [[] for _ in range(num_ranks)]
    ready: list[list[Turn]] = [[] for _ in range(num_ranks)]
    running: list[tuple[int, int, Turn]] = []  # (end, rank, what)
    idle = set(range(num_ranks))
    launched = min(limit, num_microbatches)
    ready[0] = [_turn(Op.F, 0, microbatch) for microbatch in range(launched)]
    now = 0
    while running or any(ready):
        for rank in sorted(idle):
            if ready[rank]:
                turn = heappop(ready[rank])
                _, microbatch, _, op, stage = turn
                orders[rank].append((op, stage, microbatch))
                heappush(running, (now + _UNITS[op], rank, turn))
                idle.discard(rank)
        now = running[0][0]
        while running and running[0][0] == now:
            _, rank, (_, microbatch, _, op, stage) = heappop(running)
            idle.add(rank)
            if op == Op.F and stage < last:
                op, stage = Op.F, stage + 1
            elif op == Op.F:
                op = Op.B
            elif stage:
                stage -= 1
            elif launched < num_microbatches:
                op, microbatch = Op.F, launched
                launched += 1
            else:
                continue
            heappush(ready[place[stage]], _turn(op, stage, microbatch))
    return orders


def _columns(orders: list[list[tuple[Op, int, int]]]) -> list[Columns]:
    tables = [np.array(order, dtype=np.int32).T for order in orders]
    return [(op.astype(np.int8), stage, microbatch, None) for op, stage, microbatch in tables]
