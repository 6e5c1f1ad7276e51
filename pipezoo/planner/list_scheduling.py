"""Another order from a given one: every rank takes what has arrived, first what comes first in the given order.

    given      rank 1    F0 F1 I0 F2 I1 ...
    F2 early   rank 1    F0 F1 F2 I0 I1 ...              while I0 is still on its way, and if memory allows

Plain list scheduling with the given places as priorities (Graham, "Bounds on Multiprocessing Timing Anomalies", 1969).
Messages that are on their way are known, so a rank may also wait a moment for what comes first. An F that overtakes
leaves room for one F of each later stage of its rank that holds nothing, so that no microbatch can be stuck forever.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple

from pipezoo.planner.problem import ROUNDING, Orders, Problem

NEVER = float("inf")


class ListPolicy(NamedTuple):
    """How a rank chooses: how many places an item may overtake, how long a rank waits for what comes first (a share
    of the item that it could run instead), how far a weight gradient may reach over the next arrival (the same)."""

    window: int
    patience: float
    leeway: float


def list_schedule(problem: Problem, given: Orders, policy: ListPolicy) -> Orders | None:
    """The F and I of every rank in the order in which they were taken; None where ranks waited for each other."""
    run_event_loop = _Walk(problem, given, policy)
    run_event_loop.run()
    return run_event_loop.orders if sum(map(len, run_event_loop.orders)) == 2 * run_event_loop.half else None


class _Walk:
    def __init__(self, problem: Problem, given: Orders, policy: ListPolicy) -> None:
        self.problem, self.policy = problem, policy
        self.m, self.half = problem.num_microbatches, problem.num_stages * problem.num_microbatches
        self.place = [0] * (2 * self.half)  # in the given order
        for order in given:
            for at, item in enumerate(order):
                self.place[item] = at
        self.arrived = [NEVER] * (2 * self.half)
        self.arrived[: self.m] = [0.0] * self.m
        self.ended = [0.0] * (2 * self.half) if problem.skips_into else []
        self.next = [stage * self.m for stage in range(2 * problem.num_stages)]  # item of every F and I of a stage
        self.orders: Orders = [[] for _ in given]
        self.weights: Orders = [[] for _ in given]
        self.num_placed = [0] * len(given)
        self.locked = [0.0] * len(given)
        self.alive = [0] * problem.num_stages  # microbatches that a stage holds anything of
        self.wakes = [0.0] * len(given)
        self.asleep = [False] * len(given)
        self.free = [0.0] * len(given)
        self.events = [(0.0, rank) for rank in range(len(given))]

    def run(self) -> None:
        events, wakes = self.events, self.wakes
        while events:
            now, rank = heappop(events)
            if wakes[rank] != now:
                continue  # it was woken earlier
            item, known, full = self._choose(rank, now)
            if item < 0 and self.num_placed[rank] < len(self.weights[rank]):
                weight = self.weights[rank][self.num_placed[rank]]
                took = self.problem.took[weight // self.m]
                if full or now + took <= known + self.policy.leeway * took:
                    item = weight
            if item >= 0:
                self._take(rank, item, now)
                continue
            self.asleep[rank], self.free[rank], wakes[rank] = True, now, known
            if known < NEVER:
                heappush(events, (known, rank))

    def _choose(self, rank: int, now: float) -> tuple[int, float, bool]:
        """The item to take, or -1; the next known arrival; and whether memory stands in the way of an F."""
        problem, m, half, place, arrived = self.problem, self.m, self.half, self.place, self.arrived
        size, stages = problem.num_stages, problem.stages_of[rank]
        heads = [self.next[kind] for s in stages for kind in (s, size + s) if self.next[kind] < (kind + 1) * m]
        if not heads:
            return -1, NEVER, False
        first = min(heads, key=place.__getitem__)
        item, known, full = -1, NEVER, False
        for head in heads:
            when = arrived[head]
            if when > now:
                known = min(known, when)
            elif item >= 0 and place[head] > place[item]:
                continue
            elif head >= half or self._fits(rank, head // m, head != first):
                item = head
            else:
                full = True
        if item >= 0 and item != first:
            waits = now < arrived[first] < now + self.policy.patience * problem.took[item // m]
            if waits or place[item] - place[first] > self.policy.window:
                item = -1
        return item, known, full

    def _fits(self, rank: int, stage: int, overtakes: bool) -> bool:
        grows = self.problem.grows
        need = self.locked[rank] + grows[stage]
        if overtakes:
            need += sum(grows[s] for s in self.problem.stages_of[rank] if s > stage and not self.alive[s])
        return need <= self.problem.limit[rank] * (1 + ROUNDING)

    def _take(self, rank: int, item: int, now: float) -> None:
        problem, m, half = self.problem, self.m, self.half
        kind = item // m
        end = now + problem.took[kind]
        stage = kind % problem.num_stages
        self.locked[rank] += problem.grows[kind] - problem.frees[kind]
        if item >= 2 * half:
            self.num_placed[rank] += 1
            self.alive[stage] -= 1
        else:
            self.orders[rank].append(item)
            self.next[kind] += 1
            if self.ended:
                self.ended[item] = end
            if item < half:
                self.alive[stage] += 1
                follower = item + m if item < half - m else item + half
            else:
                self.weights[rank].append(item + half)
                follower = item - m if stage else -1
            if follower >= 0:
                self._send(rank, follower, end)
        self.free[rank] = self.wakes[rank] = end
        self.asleep[rank] = False
        heappush(self.events, (end, rank))

    def _send(self, rank: int, item: int, end: float) -> None:
        problem = self.problem
        kind = item // self.m
        when = end + problem.lag[kind]
        for far, late in problem.skips_into[kind] if self.ended else ():
            when = max(when, self.ended[item + far] + late)
        self.arrived[item] = when
        to = problem.stage_to_rank[kind % problem.num_stages]
        if to != rank and self.asleep[to] and when < self.wakes[to]:
            self.wakes[to] = max(when, self.free[to])
            heappush(self.events, (self.wakes[to], to))
