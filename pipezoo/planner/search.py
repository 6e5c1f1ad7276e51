"""The search for one problem: from the orders that there are, by weight placement and list scheduling, to better.

    starts   fixed orders of the zoo on the same stages; with one stage a rank, warm-ups of all depths
             each with its weight gradients moved, in a few ways
    moves    a good order is listed again by other policies, or its warm-ups change, and weight gradients are placed
    stop     at the lower bound, after so many moves, or when the time is up; the best order so far is always there

The same seed and number of moves give the same order, as long as the time does not run out first.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from pipezoo.planner.list_scheduling import ListPolicy, list_schedule
from pipezoo.planner.local_search import move_weight_grads
from pipezoo.planner.problem import ROUNDING, Orders, Problem, complete_items_of, items_of
from pipezoo.planner.warmup import candidates, orders_of
from pipezoo.planner.weight_placement import Placed, latest_starts
from pipezoo.planner.weight_placement import place as place_weight_grads
from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.memory import peak_memory
from pipezoo.simulator.simulate import simulate

# Ways to place weight gradients: the leeway, and how much later than the lower bound ranks may end (None: whenever).
Way = tuple[float, "float | None"]
WAYS: tuple[Way, ...] = ((0.5, 0.0), (1.0, 0.0), (1.0, 0.005), (0.0, None), (0.5, 0.02))
POLICIES = [
    ListPolicy(window, patience, leeway) for window in (1, 2) for patience in (1.0, 0.5) for leeway in (0.5, 1.0)
]
CLOSE = 1e-9  # relative; as good as the bound
KEPT = 4  # good orders that moves start from
WEIGHT_MOVES = 10  # single weight gradients that are moved for each move: they cost so much less

OnProgress = Callable[[int, Placed], None]


@dataclass
class Search:
    """One search; ``best`` is the best order so far, None before the first that fits into memory.

    Args:
        problem: what is asked.
        objective: ``step`` (the end of the step, then the longest span) or ``span`` (the other way round).
        deadline: moment of ``time.monotonic`` at which the search stops.
        seed: of the moves.
        on_progress: hears of every better order, with the number of orders tried until then.
    """

    problem: Problem
    objective: str = "step"
    deadline: float = float("inf")
    seed: int = 0
    on_progress: OnProgress | None = None
    best: Placed | None = None
    num_tried: int = 0
    pool: list[tuple[tuple[float, float], Orders]] = field(default_factory=list)

    def run(self, starts: Iterable[Schedule], iterations: int) -> Placed | None:
        """Try the starts, which have the stages of the problem, then ``moves`` changes of the best."""
        for schedule in starts:
            self.offer(schedule)
            self.place(items_of(schedule))
            if self._is_over():
                return self.best
        if self.best is None:
            self.place(self._one_by_one())
        if self.problem.num_stages == self.problem.num_ranks:
            for depths in candidates(self.problem):
                self.place(orders_of(depths, self.problem.num_microbatches))
                if self._is_over():
                    return self.best
        self._list_schedule_all()
        chance = random.Random(self.seed)
        for _ in range(iterations):
            if self._is_over() or not self.pool:
                break
            self._move(chance)
        self.shift(iterations, self.seed)
        return self.best

    def shift(self, iterations: int, seed: int) -> None:
        """Move single weight gradients of the best order."""
        if self.best is not None and iterations and self.objective == "step" and not self._is_over():
            self.num_tried += 1
            self._offer(
                move_weight_grads(self.problem, self.best.orders, iterations * WEIGHT_MOVES, seed, self._is_over)
            )

    def offer(self, schedule: Schedule) -> None:
        """Take a fixed schedule into account as it stands, if it fits into memory and splits every backward."""
        problem = self.problem
        if (schedule.op == Op.B).any() or schedule.overlap is not None:
            return
        peaks = peak_memory(schedule, problem.cost)
        if all(peak <= most * (1 + ROUNDING) for peak, most in zip(peaks, problem.limit, strict=True)):
            timeline = simulate(schedule, problem.cost)
            ends = timeline.end[schedule.offsets[1:] - 1]
            step = float((ends + np.array(problem.after)).max())
            self._offer(Placed(step, float(timeline.own_span().max()), complete_items_of(schedule)))

    def _one_by_one(self) -> Orders:
        """Every microbatch down and back before the next: slow, and of the least memory."""
        m, size = self.problem.num_microbatches, self.problem.num_stages
        return [
            [kind * m + k for k in range(m) for kind in (*stages, *(size + s for s in reversed(stages)))]
            for stages in self.problem.stages_of
        ]

    def _list_schedule_all(self) -> None:
        for _, given in list(self.pool[:2]):
            for policy in POLICIES:
                if self._is_over():
                    return
                self.place(list_schedule(self.problem, given, policy))

    def _move(self, chance: random.Random) -> None:
        _, given = self.pool[min(int(chance.expovariate(1.0)), len(self.pool) - 1)]
        if self.problem.num_stages == self.problem.num_ranks and chance.random() < 0.5:
            self.place(self._other_depth(given, chance))
            return
        policy = ListPolicy(chance.choice((1, 1, 2, 2, 3, 4, 8, 16)), chance.random() * 1.25, chance.random() * 1.25)
        self.place(list_schedule(self.problem, given, policy))

    def _other_depth(self, given: Orders, chance: random.Random) -> Orders:
        """One rank, or all up to it, with one forward more or less before their first input gradient."""
        half = self.problem.num_stages * self.problem.num_microbatches
        rank, change = chance.randrange(len(given)), chance.choice((-1, 1))
        low = 0 if chance.random() < 0.3 else rank
        orders = list(given)
        for at in range(low, rank + 1):
            order = list(given[at])
            depth = next(i for i, item in enumerate(order) if item >= half)
            if change > 0 and (later := next((i for i in range(depth, len(order)) if order[i] < half), 0)):
                order.insert(depth, order.pop(later))
            elif change < 0 and depth > 1:
                order.insert(depth, order.pop(depth - 1))
            orders[at] = order
        return orders

    def place(self, given: Orders | None, ways: Iterable[Way] = WAYS) -> None:
        """Try an order of F and I with its weight gradients placed in every way."""
        if given is None:
            return
        self.num_tried += 1
        best: tuple[float, float] | None = None
        targets = self._targets()
        for leeway, slack in ways:
            latest = None
            if slack is not None:
                latest = latest_starts(self.problem, given, [end * (1 + slack) for end in targets])
            placed = place_weight_grads(self.problem, given, leeway, latest)
            if placed is None:
                continue
            key = self._key(placed)
            best = key if best is None else min(best, key)
            self._offer(placed)
            if self._is_over():
                break
        if best is not None and all(known[0] != best for known in self.pool):
            self.pool = sorted([*self.pool, (best, given)], key=lambda entry: entry[0])[:KEPT]

    def _offer(self, placed: Placed) -> None:
        if self.best is None or self._key(placed) < self._key(self.best):
            self.best = placed
            if self.on_progress is not None:
                self.on_progress(self.num_tried, placed)

    def _targets(self) -> list[float]:
        """When every rank ends in an order that meets the bound, or both bounds where the span is the objective."""
        problem = self.problem
        if self.objective == "step":
            step = problem.bound + min(problem.after)
            return [step - after for after in problem.after]
        begins = [problem.first(stages[0], 0) for stages in problem.stages_of]
        return [min(problem.bound, begin + problem.span_bound) for begin in begins]

    def _key(self, placed: Placed) -> tuple[float, float]:
        pair = (placed.step, placed.span) if self.objective == "step" else (placed.span, placed.step)
        return (round(pair[0], 12), pair[1])

    def _is_over(self) -> bool:
        if time.monotonic() >= self.deadline:
            return True
        if self.best is None:
            return False
        step = self.best.step <= (self.problem.bound + min(self.problem.after)) * (1 + CLOSE)
        span = self.best.span <= self.problem.span_bound * (1 + CLOSE)
        return step and (span or self.objective == "step")
