"""From costs, ranks and memory to a ranked table of plans: every fixed schedule, and orders made for these costs.

    for each number of stages per rank and of microbatches
        every schedule of the zoo                     played; those that do not fit into memory are out
        for each placement: a loop; a V for v = 2     searched, starting from the fixed orders on the same stages

So the best plan is never worse, in prediction, than the best fixed schedule that fits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipezoo.action import Op
from pipezoo.cost import Cost
from pipezoo.planner.problem import ROUNDING, Problem
from pipezoo.planner.search import Search
from pipezoo.planner.weights import Placed
from pipezoo.planner.wishes import Wishes, amount
from pipezoo.planner.zoo import fixed_orders
from pipezoo.schedule import Schedule
from pipezoo.simulator import predict
from pipezoo.spelling import unknown

CostOf = Callable[[int, int], Cost]  # of so many stages, so many of them per rank
Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Plan:
    """One row of the table; ``made`` is "fixed" for a schedule of the zoo, "planned" for an order made here."""

    name: str
    made: str
    schedule: Schedule
    cost: Cost
    prediction: dict[str, Any]
    bound: float

    @property
    def stages_per_rank(self) -> int:
        return self.schedule.num_stages // self.schedule.num_ranks

    @property
    def step(self) -> float:
        return float(self.prediction["step_seconds"])

    @property
    def span(self) -> float:
        return float(self.prediction["bubble"]["span"])

    @property
    def peak(self) -> float:
        return float(max(self.prediction["peak_memory"]))

    @property
    def gap(self) -> float:
        """How much longer its makespan is than the lower bound of its stages under the memory limit, as a share."""
        return float(self.prediction["makespan_seconds"] / self.bound - 1) if self.bound else 0.0

    def row(self) -> dict[str, Any]:
        """Plain numbers, for a table or a file."""
        return {
            "schedule": self.name,
            "made": self.made,
            "stages_per_rank": self.stages_per_rank,
            "num_microbatches": self.schedule.num_microbatches,
            "step_seconds": self.step,
            "bubble": self.prediction["bubble"],
            "peak_memory": self.peak,
            "gap": self.gap,
        }


@dataclass(frozen=True)
class Plans:
    """All that fit, best first; ``too_large`` counts the schedules that did not; ``notes`` say what was left out."""

    ranked: list[Plan]
    too_large: int
    notes: list[str]


def make_plans(
    cost_of: CostOf, num_ranks: int, num_microbatches: Sequence[int], wishes: Wishes, tell: Tell | None = None
) -> Plans:
    """The ranked table.

    Args:
        cost_of: the costs of a number of stages; raises ValueError for one that it does not know.
        num_microbatches: the numbers to try; costs are of one microbatch, whatever their number.
        tell: hears a line about every search.

    Raises:
        ValueError: no order fits into memory, an unknown schedule is named, or there are no costs for any size.
    """
    deadline = time.monotonic() + wishes.budget
    sizes = [(v, m) for v in wishes.stages_per_rank for m in num_microbatches]
    costs, notes = _costs(cost_of, num_ranks, wishes)
    fixed: list[Plan] = []
    for v, m in sizes:
        if v in costs:
            fixed += [
                _plan(s, "fixed", costs[v], wishes.limit) for s in fixed_orders(num_ranks, m, v) if _can(s, costs[v])
            ]
    fixed = _named(fixed, wishes.schedules)
    fitting = [plan for plan in fixed if plan.peak <= wishes.limit * (1 + ROUNDING)]
    ranked = list(fitting)
    if wishes.generate:
        problems = list(_problems(costs, num_ranks, sizes, wishes.limit, notes))
        deadline = max(deadline, time.monotonic() + 0.1 * wishes.budget)
        for left, problem in zip(range(len(problems), 0, -1), problems, strict=True):
            until = time.monotonic() + max(0.0, deadline - time.monotonic()) / left
            if plan := _searched(problem, fitting, wishes, until, tell):
                ranked.append(plan)
    if not ranked:
        raise _nothing_fits(fixed, wishes, notes)
    key = _span_key if wishes.objective == "span" else _step_key
    return Plans(sorted(ranked, key=key), len(fixed) - len(fitting), notes)


def _step_key(plan: Plan) -> tuple[float, float, bool]:
    """Time for a microbatch, then memory; a fixed schedule before one made here that is no better."""
    return (round(plan.step / plan.schedule.num_microbatches, 12), plan.peak, plan.made != "fixed")


def _span_key(plan: Plan) -> tuple[float, float, bool]:
    return (round(plan.span, 12), plan.step / plan.schedule.num_microbatches, plan.made != "fixed")


def _costs(cost_of: CostOf, num_ranks: int, wishes: Wishes) -> tuple[dict[int, Cost], list[str]]:
    """The costs by stages per rank, and why some have none."""
    costs, notes = {}, []
    refused: ValueError | None = None
    for v in wishes.stages_per_rank:
        try:
            cost = cost_of(num_ranks * v, v)
            _check_memory(cost, wishes)
            costs[v] = cost
        except ValueError as error:
            refused = error  # the last one cuts finest
            notes.append(f"{v} stages per rank: {error}")
    if not costs and refused is not None:
        raise refused
    works = {v: float(np.nansum(cost.seconds[:, Op.F])) for v, cost in costs.items()}
    if works and max(works.values()) > 1.5 * min(works.values()):  # measured times differ a little
        notes.append("costs of one stage stand for every stage: more stages per rank are a larger model here")
    return costs, notes


def _check_memory(cost: Cost, wishes: Wishes) -> None:
    """A stage that keeps more than the limit for one microbatch runs in no order."""
    stage = int(np.argmax(cost.keeps))
    if (least := float(cost.keeps[stage])) > wishes.limit * (1 + ROUNDING):
        raise ValueError(
            f"memory={wishes.memory}: stage {stage} alone needs {amount(least, _unit(wishes))} of "
            f"{amount(wishes.limit, _unit(wishes))} for one microbatch"
        )


def _unit(wishes: Wishes) -> str:
    return "B" if isinstance(wishes.memory, str) or wishes.limit >= 1e4 else ""


def _can(schedule: Schedule, cost: Cost) -> bool:
    """Whether the costs know all that the schedule does."""
    used = np.unique(schedule.op[schedule.op <= Op.W])
    return not np.isnan(cost.seconds[:, used]).any()


def _plan(schedule: Schedule, made: str, cost: Cost, limit: float, bound: float | None = None) -> Plan:
    prediction = predict(schedule, cost)
    if bound is None:
        bound = float(prediction["lower_bound"]["makespan_seconds"])
    return Plan(schedule.name, made, schedule, cost, prediction, bound)


def _named(plans: list[Plan], names: tuple[str, ...] | None) -> list[Plan]:
    if names is None:
        return plans
    there = {plan.name for plan in plans}
    for name in names:
        if name not in there:
            raise ValueError(f"schedules={name}: {unknown('schedule of this size', name, there)}")
    return [plan for plan in plans if plan.name in names]


def _problems(
    costs: dict[int, Cost], num_ranks: int, sizes: Sequence[tuple[int, int]], limit: float, notes: list[str]
) -> Iterator[Problem]:
    """What orders are searched for: v = 1, and v = 2 in a V and in a loop."""
    for v, m in sizes:
        if v not in costs or v > 2:
            continue
        down = tuple(range(num_ranks))
        for place in [down] if v == 1 else [down + down[::-1], down + down]:
            if num_ranks == 1 and v == 2 and place == down + down[::-1]:
                continue
            try:
                yield Problem(costs[v], place, m, (limit,) * num_ranks)
            except ValueError as error:
                notes.append(f"{v} stages per rank: no order was made: {error}")
                break


def _searched(problem: Problem, fixed: list[Plan], wishes: Wishes, until: float, tell: Tell | None) -> Plan | None:
    same = [
        plan
        for plan in fixed
        if plan.schedule.stage_to_rank == problem.stage_to_rank
        and plan.schedule.num_microbatches == problem.num_microbatches
    ]
    same.sort(key=_span_key if wishes.objective == "span" else _step_key)
    shape = _shape(problem)
    search = Search(problem, wishes.objective, until)
    if tell is not None:
        search.tell = lambda tried, placed: tell(_progress(shape, tried, placed))
    placed = search.run((plan.schedule for plan in same), wishes.moves)
    if placed is None:
        return None
    return _plan(problem.schedule(placed.orders, shape), "planned", problem.cost, wishes.limit, problem.bound)


def _shape(problem: Problem) -> str:
    v = problem.num_stages // problem.num_ranks
    if v == 1:
        return "planned"
    return "planned V" if problem.stage_to_rank[problem.num_ranks] == problem.num_ranks - 1 else "planned loop"


def _progress(shape: str, tried: int, placed: Placed) -> str:
    return f"{shape}: step {placed.step:.6g} after {tried} orders"


def _nothing_fits(fixed: list[Plan], wishes: Wishes, notes: list[str]) -> ValueError:
    alone = next((text for note in notes if (text := note.partition(": ")[2]).startswith("memory=")), "")
    if alone:
        return ValueError(alone)
    least = min(fixed, key=lambda plan: plan.peak, default=None)
    hint = (
        f"; the fixed schedule that needs least is {least.name}: {amount(least.peak, _unit(wishes))}" if least else ""
    )
    return ValueError(f"memory={wishes.memory}: no order fits{hint}")
