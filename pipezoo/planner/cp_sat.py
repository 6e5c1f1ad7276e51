"""The best order of a small case, proved by a solver: expected values for tests, and how far the search is from them.

OR-tools' CP-SAT (Apache 2.0; ``pip install pipezoo[opt]``). An interval for every F, I and W; intervals of a rank do
not overlap; F and I wait for their sources; what a rank holds is a reservoir that F fills, and I and W drain.
Microbatches of a stage come in turn. A few hundred actions are proved in seconds to minutes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pipezoo.planner.problem import ROUNDING, Orders, Problem

GRAIN = 10**6  # times are counted in millionths of the bound
FINE = 10**6  # memory is counted in millionths of the limit


class Proof(NamedTuple):
    """``step``: the best found; ``bound``: what no order beats; equal where it is proved. ``orders``: the best."""

    step: float
    bound: float
    orders: Orders


def solve(problem: Problem, seconds: float, grain: float | None = None, at_most: float | None = None) -> Proof | None:
    """The order with the shortest makespan; None where none was found in time. Optimizer steps are left out.

    Args:
        seconds: how long to look.
        grain: the unit that costs are rounded to; None: a millionth of the bound.
        at_most: a makespan that is known to be reached.

    Raises:
        ImportError: OR-tools is not installed, and how to get it.
    """
    try:
        from ortools.sat.python import cp_model  # type: ignore
    except ImportError:
        raise ImportError("OR-tools is not installed; pip install pipezoo[opt]") from None
    unit = grain or problem.bound / GRAIN
    m, half = problem.num_microbatches, problem.num_stages * problem.num_microbatches
    took = [round(value / unit) for value in problem.took]
    lag = [round(value / unit) for value in problem.lag]
    horizon = round(at_most / unit) if at_most else m * sum(took) + sum(lag) + sum(took)
    model = cp_model.CpModel()
    start = [model.new_int_var(0, horizon, "") for _ in range(3 * half)]
    for item, at in enumerate(start):
        model.add(at + took[item // m] <= horizon)
        if item % m:
            model.add(at >= start[item - 1] + took[item // m])
        source = item - half if item >= 2 * half else problem.source[item]
        if source >= 0:
            late = lag[item // m] if item < 2 * half else 0
            model.add(at >= start[source] + took[source // m] + late)
        for far, seconds in problem.skips_into[item // m] if problem.skips_into and item < 2 * half else ():
            model.add(at >= start[item + far] + took[(item + far) // m] + round(seconds / unit))
    end = model.new_int_var(0, horizon, "end")
    for rank, stages in enumerate(problem.stages_of):
        items = [kind * m + k for s in stages for kind in _kinds(problem, s) for k in range(m)]
        model.add_no_overlap([model.new_fixed_size_interval_var(start[item], took[item // m], "") for item in items])
        _remember(model, problem, rank, items, start, took)
        for item in items:
            model.add(end >= start[item] + took[item // m])
    model.minimize(end)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    orders = [
        sorted(
            (kind * m + k for s in stages for kind in _kinds(problem, s) for k in range(m)),
            key=lambda i: solver.value(start[i]),
        )
        for stages in problem.stages_of
    ]
    return Proof(solver.objective_value * unit, solver.best_objective_bound * unit, orders)


def _kinds(problem: Problem, stage: int) -> tuple[int, int, int]:
    return stage, problem.num_stages + stage, 2 * problem.num_stages + stage


def _remember(model: Any, problem: Problem, rank: int, items: list[int], start: list[Any], took: list[int]) -> None:
    """What F adds at its start, and I and W take away at their ends, never exceeds the limit."""
    limit, m, size = problem.limit[rank], problem.num_microbatches, problem.num_stages
    if limit == float("inf"):
        return
    times, changes = [], []
    for item in items:
        kind = item // m
        stage, part = kind % size, kind // size
        grown, freed = (
            int(FINE * (1 + ROUNDING) * amount / limit)
            for amount in (problem.grows[stage], problem.frees[size + stage])
        )
        times.append(start[item] + (took[kind] if part else 0))
        changes.append((grown, -freed, freed - grown)[part])
    model.add_reservoir_constraint(times, changes, -FINE, FINE)
