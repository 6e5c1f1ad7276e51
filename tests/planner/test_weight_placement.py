from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipezoo.costs.unit import unit
from pipezoo.planner.problem import Problem, items_of
from pipezoo.planner.weight_placement import latest_starts, place
from pipezoo.schedules.zb_h1 import zb_h1
from pipezoo.schedules.zb_h2 import zb_h2
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.memory import peak_memory
from pipezoo.simulator.simulate import predict


def problem_of(schedule, cost, limit=math.inf):
    return Problem(cost, schedule.stage_to_rank, schedule.num_microbatches, (limit,) * schedule.num_ranks)


@pytest.mark.parametrize(("p", "m"), [(1, 3), (2, 4), (4, 8), (8, 24)])
def test_at_equal_costs_the_gaps_of_1f1b_with_its_memory_make_zb_h1(p, m):
    schedule = zb_h1(p, m)
    placed = place(problem_of(schedule, unit(p), limit=p), items_of(schedule), 0.0)
    assert placed.step == 3 * m + p - 1


def test_drawn():
    schedule = zb_h1(2, 3)
    problem = problem_of(schedule, unit(2), limit=2.0)
    placed = place(problem, items_of(schedule), 0.0)
    assert [" ".join(map(str, order)) for order in problem.schedule(placed.orders, "placed").order] == [
        "0F0 0F1 0I0 0W0 0F2 0I1 0W1 0I2 0W2",
        "1F0 1I0 1F1 1I1 1W0 1F2 1I2 1W1 1W2",
    ]


def test_an_order_that_memory_forbids_is_none():
    assert place(problem_of(zb_h2(4, 8), unit(4), limit=6.0), items_of(zb_h2(4, 8)), 0.0) is None


@st.composite
def cases(draw):
    p = draw(st.integers(1, 4))
    m = draw(st.integers(p, 3 * p))
    function = draw(st.sampled_from([zb_h1, zb_h2, zbv]))
    schedule = function(p, m)
    number = st.integers(0, 9)
    stages = [
        {
            "F": draw(number),
            "I": draw(number),
            "W": draw(number),
            "activation_bytes": 8,
            "freed_by_input_grad": draw(st.integers(0, 8)),
        }
        for _ in range(schedule.num_stages)
    ]
    p2p = {"latency": draw(st.integers(0, 3))}
    cost = Cost.from_dict({"stages": stages, "p2p": p2p, "overlap": draw(st.booleans())})
    return schedule, cost, draw(st.sampled_from([0.0, 0.5, 1.0])), draw(st.sampled_from([None, 0.0, 0.1]))


@settings(max_examples=80, deadline=None)
@given(cases())
def test_what_it_says_is_what_the_simulator_says_and_memory_is_kept(case):
    schedule, cost, leeway, slack = case
    limit = tuple(peak_memory(schedule, cost).tolist())
    problem = Problem(cost, schedule.stage_to_rank, schedule.num_microbatches, limit)
    items = items_of(schedule)
    latest = None if slack is None else latest_starts(problem, items, [problem.bound * (1 + slack)] * len(limit))

    placed = place(problem, items, leeway, latest)

    made = problem.schedule(placed.orders, "placed")
    prediction = predict(made, cost)
    assert items_of(made) == items
    assert prediction["step_seconds"] == pytest.approx(placed.step)
    assert placed.step >= problem.bound - 1e-9
    assert all(peak <= most + 1e-6 for peak, most in zip(prediction["peak_memory"], limit, strict=True))


def test_latest_starts_are_those_of_the_order_played_backwards():
    schedule = zb_h1(2, 2)
    problem = problem_of(schedule, unit(2))
    latest = latest_starts(problem, items_of(schedule), [10.0, 10.0])
    # rank 0: F0 F1 I0 I1, then one W; rank 1: F0 I0 F1 I1
    assert latest == [3.0, 5.0, 4.0, 6.0, 7.0, 8.0, 5.0, 7.0]
