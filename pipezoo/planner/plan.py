"""From costs, ranks and memory to a ranked table of plans: every fixed schedule, and orders made for these costs.

    for each number of stages per rank and of microbatches
        every schedule of the zoo                     played; those that do not fit into memory are out
        ... with its weight gradients moved        same messages, same memory; where that is faster
        for each placement: a loop; a V for v = 2     searched, starting from the fixed orders on the same stages

So the best plan is never worse, in prediction, than the best fixed schedule that fits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from pipezoo.errors import ArgumentError
from pipezoo.planner.cost_table import CostOf, Size, can_run, can_split, cost_table, unit_of
from pipezoo.planner.merge_backward import merge_backwards, time_before_merging
from pipezoo.planner.options import PlanOptions
from pipezoo.planner.plans import Plan, Plans, plan, ranked
from pipezoo.planner.problem import ROUNDING, Problem
from pipezoo.planner.replace_weight_grads import replace_weight_grads
from pipezoo.planner.search import Search
from pipezoo.planner.weight_placement import Placed
from pipezoo.results.units import amount
from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules import fixed_orders
from pipezoo.simulator.cost import Cost
from pipezoo.validators import unknown_word

OnProgress = Callable[[str], None]
FOR_WEIGHTS = 0.2  # share of the budget in which fixed schedules are re-placed
FOR_ONE = 0.25  # share of what is left of it that one of them may take


def make_plans(
    cost_of: CostOf,
    num_ranks: int,
    num_microbatches: Sequence[int],
    options: PlanOptions,
    on_progress: OnProgress | None = None,
    shared: bool = False,
    seed: int = 0,
    tie: float = 0.0,
) -> Plans:
    """The ranked table.

    Args:
        cost_of: the costs of one microbatch; raises ValueError for a size that it does not know.
        num_microbatches: the numbers to try.
        on_progress: hears a line about every search.
        shared: whether these numbers share one batch, see :class:`Plan`.
        seed: of all that a search draws by lot.
        tie: the share by which plans must differ to be told apart, see :func:`ranked`.

    Raises:
        ValueError: no order fits into memory, an unknown schedule is named, or there are no costs for any size.
    """
    sizes = [(v, m) for v in options.stages_per_rank for m in num_microbatches]
    table = cost_table(cost_of, num_ranks, sizes, options)
    costs, notes = table.costs, table.notes
    start = time.monotonic()  # measuring is no search
    fixed = [
        plan(schedule, "fixed", cost, shared)
        for (v, m), cost in costs.items()
        for schedule in fixed_orders(num_ranks, m, v)
        if can_run(schedule, cost)
    ]
    fixed = _named(fixed, options.schedules)
    fitting = ranked((row for row in fixed if row.peak <= options.limit * (1 + ROUNDING)), options.objective)
    rows = list(fitting)
    if options.place_weight_grads:
        rows += _replaced(fitting, options.iterations, seed, start + FOR_WEIGHTS * options.time_limit_s)
    if options.search:
        problems = list(_problems(costs, num_ranks, options.limit, notes))
        deadline = max(start + options.time_limit_s, time.monotonic() + 0.1 * options.time_limit_s)
        for left, problem in zip(range(len(problems), 0, -1), problems, strict=True):
            until = time.monotonic() + max(0.0, deadline - time.monotonic()) / left
            if (made := _searched(problem, fitting, options, until, seed, on_progress)) is not None:
                bound = None if (made.op == Op.B).any() else problem.bound
                rows.append(plan(made, "planned", problem.cost, shared, bound))
    if not rows:
        raise table.too_large[0] if table.too_large else _nothing_fits(fixed, options)
    return Plans(ranked(rows, options.objective, tie), len(fixed) - len(fitting), notes)


def _named(plans: list[Plan], names: tuple[str, ...] | None) -> list[Plan]:
    if names is None:
        return plans
    there = {row.name for row in plans}
    for name in names:
        if name not in there:
            raise unknown_word("schedules", name, "schedule of this size", there)
    return [row for row in plans if row.name in names]


def _replaced(fitting: list[Plan], iterations: int, seed: int, deadline: float) -> Iterator[Plan]:
    """Fixed schedules whose weight gradients are better elsewhere, the best first, until the time has run out."""
    for row in fitting:
        if (left := deadline - time.monotonic()) <= 0:
            return
        until = deadline - (1 - FOR_ONE) * left
        if can_split(row.cost):
            schedule = replace_weight_grads(row.schedule, row.cost, iterations, seed, until)
            if schedule is not row.schedule:
                yield plan(schedule, "moved", row.cost, row.shared)


def _problems(costs: dict[Size, Cost], num_ranks: int, limit: float, notes: list[str]) -> Iterator[Problem]:
    """What orders are searched for: v = 1, and v = 2 in a V and in a loop."""
    down = tuple(range(num_ranks))
    for (v, m), cost in costs.items():
        if v > 2:
            continue
        for place in [down] if v == 1 else [down + down[::-1], down + down]:
            if num_ranks == 1 and v == 2 and place == down + down[::-1]:
                continue
            try:
                yield Problem(cost, place, m, (limit,) * num_ranks)
            except ValueError as error:
                notes.append(f"no order was made for {v} stages on each rank ({error})")
                break


def _searched(
    problem: Problem, fixed: list[Plan], options: PlanOptions, until: float, seed: int, on_progress: OnProgress | None
) -> Schedule | None:
    """The best order of one problem, from the fixed ones on the same stages on."""
    starts = (
        row.schedule
        for row in fixed
        if row.schedule.stage_to_rank == problem.stage_to_rank
        and row.schedule.num_microbatches == problem.num_microbatches
    )
    shape = _shape(problem)
    unit = "s" if problem.cost.unit == "s" else "units"
    search = Search(problem, options.objective, time_before_merging(problem.cost, until), seed)
    if on_progress is not None:
        search.on_progress = lambda tried, placed: on_progress(_progress(shape, tried, placed, unit))
    placed = search.run(starts, options.iterations)
    return None if placed is None else merge_backwards(problem.schedule(placed.orders, shape), problem.cost, until)


def _shape(problem: Problem) -> str:
    v = problem.num_stages // problem.num_ranks
    if v == 1:
        return "planned"
    return "planned V" if problem.stage_to_rank[problem.num_ranks] == problem.num_ranks - 1 else "planned loop"


def _progress(shape: str, tried: int, placed: Placed, unit: str) -> str:
    return f"{shape}: the best step so far takes {placed.step:.6g} {unit}; {tried} orders tried"


def _nothing_fits(fixed: list[Plan], options: PlanOptions) -> ArgumentError:
    least = min(fixed, key=lambda row: row.peak, default=None)
    hint = (
        f"; the fixed schedule that needs least is {least.name}: {amount(least.peak, unit_of(options))}"
        if least
        else ""
    )
    return ArgumentError("memory", options.memory, f"no order fits{hint}")
