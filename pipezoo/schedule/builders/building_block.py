"""Schedules woven from one block: where the passes of one microbatch are, repeated every six units of time.

Qi et al., "Pipeline Parallelism with Controllable Memory", arXiv:2405.15362: two stages a rank, placed as a V. A block
says when each rank runs its four passes of microbatch 0 (F down, f up, i down, I up; all take one unit); microbatch k
follows 6k later, and W fills the two units of six that are left. How long a block lives is the memory it needs.

    rank 0  F .  .  .  .  .  .  f i .  .  .  .  .  .  I        a block of four ranks, 16 units long: a rank's two stages
    rank 1  .  F .  .  .  .  f .  .  i .  .  .  .  I           live 16 units together, so 16 / 6 stages are held at
    rank 2  .  .  F .  .  f .  .  .  .  i .  .  I              most, rounded up to a whole block
    rank 3  .  .  .  F f .  .  .  .  .  .  i I

    repeat   passes at block + 6k                     their order is legal, the ends are full of holes
    pull     before the first I of rank 0, and after its last F, every pass moves into the earliest hole that its
             inputs and the memory of the repeated block allow
    fill     the order of F, f, i, I is played; W runs wherever a rank would wait
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np

from pipezoo.schedule.action import Op
from pipezoo.schedule.builders.phases import Steps
from pipezoo.schedule.schedule import Schedule

Block = list[tuple[int, int, int, int]]  # per rank: when it runs F, f, i, I of microbatch 0

EVERY = 6
_F_DOWN, _F_UP, _I_DOWN, _I_UP, _W = range(5)
_OP = (Op.F, Op.F, Op.I, Op.I)
_SLOT = (0, 1, 1, 0)
Pass = tuple[int, int]  # which of the five, and its number on the rank


def weave(block: Block, num_microbatches: int, name: str) -> Schedule:
    """The schedule of a block: rank ``r`` has the stages ``r`` and ``2 * num_ranks - 1 - r``. Linear in its actions."""
    woven = _Woven(block, num_microbatches)
    woven.pull()
    passes = [[one for one in line if one is not None and one[0] != _W] for line in woven.lines]
    orders, last = _fill(passes, woven.limit), 2 * len(block) - 1
    return Schedule.from_columns((order.on([rank, last - rank]) for rank, order in enumerate(orders)), name)


class _Woven:
    """``lines[rank][t]``: the pass at time t; ``held[rank][t]``: stages held then, of ``limit`` at most."""

    def __init__(self, block: Block, num_microbatches: int) -> None:
        self.last = len(block) - 1
        self.begin, self.end = block[0][_I_UP], EVERY * (num_microbatches - 1)  # of the part that stays as it is
        length = max(map(max, block)) + EVERY * num_microbatches + 2 * num_microbatches
        self.lines: list[list[Pass | None]] = []
        self.locked: list[list[int]] = []
        self.when: list[dict[Pass, int]] = []
        self.backwards: list[list[int]] = []
        for starts in block:
            line: list[Pass | None] = [None] * length
            for kind, start in enumerate(starts):
                for microbatch in range(num_microbatches):
                    line[start + EVERY * microbatch] = (kind, microbatch)
            self._add(line)
        self.limit = max(map(max, self.locked))

    def _add(self, line: list[Pass | None]) -> None:
        """One rank, its weight gradients in the first holes there are."""
        locked: list[int] = []
        when: dict[Pass, int] = {}
        backwards: list[int] = []
        level = num_weights = 0
        for t, one in enumerate(line):
            if one is None and num_weights < len(backwards):
                one = line[t] = (_W, num_weights)
                num_weights += 1
                level -= 1
            elif one is not None and one[0] in (_F_DOWN, _F_UP):
                level += 1
            elif one is not None:
                backwards.append(t)
            if one is not None:
                when[one] = t
            locked.append(level)
        self.lines.append(line)
        self.locked.append(locked)
        self.when.append(when)
        self.backwards.append(backwards)

    def pull(self) -> None:
        """Move passes of the two ends forward in time, from the first to the last."""
        timed = ((t, rank, one) for rank, when in enumerate(self.when) for one, t in when.items())
        for t, rank, one in sorted(entry for entry in timed if not self.begin <= entry[0] <= self.end):
            self._move(rank, one, t)

    def _move(self, rank: int, one: Pass, t: int) -> None:
        line, locked = self.lines[rank], self.locked[rank]
        forward = one[0] in (_F_DOWN, _F_UP)
        soonest = self._ready(rank, one)
        if forward:  # it would be held from its new place on
            full = (s for s in range(t - 1, soonest - 1, -1) if locked[s] >= self.limit)
            soonest = max(soonest, next(full, -1) + 1)
        to = next((s for s in range(soonest, t) if line[s] is None), None)
        if to is None:
            return
        line[t], line[to] = None, one
        self.when[rank][one] = to
        if forward or one[0] == _W:
            for s in range(to, t):
                locked[s] += 1 if forward else -1
        else:
            backwards = self.backwards[rank]
            del backwards[bisect_left(backwards, t)]
            insort(backwards, to)

    def _ready(self, rank: int, one: Pass) -> int:
        """The first moment at which all that a pass needs is done."""
        kind, number = one
        when = self.when
        needs = [when[rank][kind, number - 1]] if number else [-1]
        if kind == _W:
            needs.append(self.backwards[rank][number])
        elif kind in (_F_DOWN, _I_DOWN) and rank:
            needs.append(when[rank - 1][one])
        elif kind in (_F_UP, _I_UP) and rank < self.last:
            needs.append(when[rank + 1][one])
        elif kind:
            needs.append(when[rank][kind - 1, number])
        return max(needs) + 1


def _fill(orders: list[list[Pass]], limit: int) -> list[Steps]:
    """Play the passes at one unit each; a rank that waits, for an input or for memory, runs a weight gradient."""
    ranks = [_Rank(order) for order in orders]
    done: list[set[Pass]] = [set() for _ in ranks]  # at the end of the last unit of time
    busy = list(enumerate(ranks))
    while busy:
        ran = [(at, one) for at, rank in busy if (one := rank.step(at, done, limit)) is not None]
        for at, one in ran:
            done[at].add(one)
            ranks[at].settle(one)
        busy = [(at, rank) for at, rank in busy if rank.is_busy()]
    return [rank.steps() for rank in ranks]


class _Rank:
    def __init__(self, order: list[Pass]) -> None:
        self.order, self.at = order, 0
        self.locked = self.ready_weights = 0
        self.out: list[tuple[Op, int, int]] = []
        self.weights = [(Op.W, _SLOT[kind], microbatch) for kind, microbatch in order if kind >= _I_DOWN]
        self.num_weights = 0

    def is_busy(self) -> bool:
        return self.at < len(self.order) or self.ready_weights > 0

    def step(self, rank: int, done: list[set[Pass]], limit: int) -> Pass | None:
        """One unit of time; returns the pass that ran, None for a weight gradient or nothing."""
        if self.at < len(self.order):
            kind, microbatch = one = self.order[self.at]
            if (kind >= _I_DOWN or self.locked < limit) and _arrived(rank, one, done):
                self.at += 1
                self.locked += kind < _I_DOWN
                self.out.append((_OP[kind], _SLOT[kind], microbatch))
                return one
        if self.ready_weights:
            self.out.append(self.weights[self.num_weights])
            self.num_weights += 1
            self.ready_weights -= 1
            self.locked -= 1
        return None

    def settle(self, one: Pass) -> None:
        self.ready_weights += one[0] >= _I_DOWN

    def steps(self) -> Steps:
        op, slot, microbatch = np.array(self.out, dtype=np.int32).T
        return Steps(op.astype(np.int8), slot, microbatch)


def _arrived(rank: int, one: Pass, done: list[set[Pass]]) -> bool:
    kind, microbatch = one
    if kind in (_F_DOWN, _I_DOWN):
        if rank:
            return one in done[rank - 1]
    elif rank < len(done) - 1:
        return one in done[rank + 1]
    return kind == _F_DOWN or (kind - 1, microbatch) in done[rank]
