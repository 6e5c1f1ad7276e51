"""The search against proved optima: makespans that CP-SAT found, and proves again where OR-tools is installed."""

from __future__ import annotations

import importlib.util

import pytest

from pipezoo.costs.unit import unit
from pipezoo.planner.cp_sat import solve
from pipezoo.planner.problem import Problem
from pipezoo.planner.search import Search
from pipezoo.schedules.zbv import zbv

PROVED = [  # p, m, stages per rank, memory, costs of a rank, the shortest makespan
    (2, 4, 1, 2.0, {"F": 3, "I": 3, "W": 2, "p2p": 0.5}, 38.0),
    (3, 6, 1, 3.0, {"F": 4, "I": 4, "W": 2, "p2p": 0.5}, 76.0),
    (3, 6, 1, 3.0, {"F": 3, "I": 3, "W": 2, "p2p": 0.5}, 60.0),
    (4, 8, 1, 4.0, {"F": 4, "I": 4, "W": 2, "p2p": 0.5}, 104.0),
    (2, 4, 2, 2.0, {"F": 4, "I": 4, "W": 2, "p2p": 0.5}, 44.0),
]
has_solver = importlib.util.find_spec("ortools") is not None


def problem_of(p, m, v, limit, costs):
    place = zbv(p, m).stage_to_rank if v == 2 else tuple(range(p))
    return Problem(unit(p * v, v, **costs), place, m, (limit,) * p)


@pytest.mark.parametrize(("p", "m", "v", "limit", "costs", "best"), PROVED)
def test_the_search_finds_the_optimum_of_small_cases(p, m, v, limit, costs, best):
    starts = [zbv(p, m)] if v == 2 else []
    assert Search(problem_of(p, m, v, limit, costs)).run(starts, iterations=100).step == best


@pytest.mark.skipif(not has_solver, reason="OR-tools is not installed (pip install pipezoo[opt])")
@pytest.mark.parametrize(("p", "m", "v", "limit", "costs", "best"), PROVED[:3])
def test_the_solver_proves_it(p, m, v, limit, costs, best):
    problem = problem_of(p, m, v, limit, costs)
    proof = solve(problem, seconds=60, grain=0.5)
    assert proof.step == proof.bound == best
    assert problem.schedule(proof.orders, "proved").num_actions == 3 * m * p * v


@pytest.mark.skipif(has_solver, reason="OR-tools is installed")
def test_without_the_solver_the_error_says_how_to_get_it():
    with pytest.raises(ImportError, match=r"pip install pipezoo\[opt\]"):
        solve(problem_of(*PROVED[0][:5]), seconds=1)
