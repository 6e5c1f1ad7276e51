from __future__ import annotations

import pytest

from pipezoo.costs.unit import unit
from pipezoo.planner.problem import Problem
from pipezoo.planner.search import Search
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.simulate import predict

# arXiv:2401.10241, tables 5 and 9: span bubbles; what I frees follows from 32 and 34 + 5as/h bytes per element
PUBLISHED = [
    # p, m, TF, TB, TW, Tc, I frees, ZB-1p, ZB-2p
    (8, 24, 18.522, 18.086, 9.337, 0.601, 0.634, 0.1585, 0.0433),
    (8, 64, 18.546, 18.097, 9.321, 0.762, 0.634, 0.0674, 0.0026),
    (8, 24, 29.718, 29.444, 19.927, 0.527, 0.5675, 0.1323, 0.0029),
    (8, 32, 29.802, 29.428, 19.530, 0.577, 0.5675, 0.1045, 0.0022),
    (16, 64, 11.307, 11.254, 8.101, 0.379, 0.5675, 0.1088, 0.0054),
]


def bubble(problem, time):
    return round(1 - problem.work(0) / time, 4)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"p{row[0]}-m{row[1]}-{row[2]}")
@pytest.mark.parametrize("times", [1, 2])
def test_the_published_span_is_met_or_beaten(row, times):
    p, m, F, I, W, p2p, frees, of_1p, of_2p = row
    problem = Problem(
        unit(p, F=F, I=I, W=W, p2p=p2p, freed_by_input_grad=frees), tuple(range(p)), m, (float(times * p),) * p
    )

    placed = Search(problem, "span").run([], iterations=0)

    assert bubble(problem, placed.span) <= (of_1p, of_2p)[times - 1]
    if times == 2:
        assert placed.step == pytest.approx(problem.bound, rel=1e-3)
    made = predict(problem.schedule(placed.orders, "made"), problem.cost)
    assert made["bubble"]["span"] == pytest.approx(1 - problem.work(0) / placed.span)
    assert max(made["peak_memory"]) <= times * p + 1e-6


def test_the_same_seed_and_moves_give_the_same_order():
    cost = unit(8, 2, F=18.5, I=18.0, W=9.3, p2p=0.6, freed_by_input_grad=0.6)
    problem = Problem(cost, zbv(4, 12).stage_to_rank, 12, (4.0,) * 4)
    one, two = (Search(problem, seed=3).run([zbv(4, 12)], iterations=30) for _ in range(2))
    assert one == two


def test_it_is_never_worse_than_what_it_starts_from():
    schedule = zbv(4, 12)
    for p2p in (0.0, 0.3, 2.0):
        cost = unit(8, 2, p2p=p2p)
        problem = Problem(cost, schedule.stage_to_rank, 12, (4.0,) * 4)
        placed = Search(problem).run([schedule], iterations=0)
        assert placed.step <= predict(schedule, cost)["step_seconds"] + 1e-9


def test_it_stops_at_the_bound_and_tells_what_it_finds():
    told = []
    problem = Problem(unit(4), tuple(range(4)), 8, (8.0,) * 4)
    search = Search(problem, on_progress=lambda tried, placed: told.append((tried, placed.step)))
    assert search.run([], iterations=1000).step == problem.bound == 27
    assert told[-1][1] == 27
    assert search.num_tried < 10


def test_a_deadline_that_is_over_leaves_the_first_order_found():
    problem = Problem(unit(4, p2p=0.5), tuple(range(4)), 8, (4.0,) * 4)
    assert Search(problem, deadline=0.0).run([], iterations=1000) is not None


@pytest.mark.parametrize("limit", [1.0, 2.0, 3.0, 4.0, 8.0])
def test_more_memory_is_never_worse(limit):
    problem, larger = (
        Problem(unit(4, F=2, I=3, W=1, p2p=0.25, freed_by_input_grad=0.5), tuple(range(4)), 12, (most,) * 4)
        for most in (limit, 2 * limit)
    )
    assert Search(larger).run([], iterations=20).step <= Search(problem).run([], iterations=20).step
