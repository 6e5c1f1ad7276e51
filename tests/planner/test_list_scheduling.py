from __future__ import annotations

import math
from itertools import chain

import pytest

from pipezoo.costs.unit import unit
from pipezoo.planner.list_scheduling import ListPolicy, list_schedule
from pipezoo.planner.problem import Problem, items_of
from pipezoo.planner.weight_placement import latest_starts, place
from pipezoo.schedules.v_half import v_half
from pipezoo.schedules.zb_h1 import zb_h1
from pipezoo.schedules.zbv import zbv


def problem_of(schedule, cost, limit=math.inf):
    return Problem(cost, schedule.stage_to_rank, schedule.num_microbatches, (limit,) * schedule.num_ranks)


@pytest.mark.parametrize("schedule", [zb_h1(4, 8), zbv(4, 8), v_half(4, 8)], ids=lambda s: s.name)
def test_an_order_that_waits_for_nothing_in_vain_stays_what_it_is(schedule):
    v = schedule.num_stages // 4
    problem = problem_of(schedule, unit(schedule.num_stages, v), limit=4.0)
    assert list_schedule(problem, items_of(schedule), ListPolicy(window=0, patience=0.0, leeway=0.0)) == items_of(
        schedule
    )


@pytest.mark.parametrize("window", [1, 2, 8])
@pytest.mark.parametrize("limit", [1.0, 2.0, 4.0])
def test_whatever_overtakes_the_order_ends_within_memory(window, limit):
    schedule = zbv(4, 12)
    problem = problem_of(schedule, unit(8, 2, F=3, I=2, W=1, p2p=0.4), limit)
    order = list_schedule(problem, items_of(schedule), ListPolicy(window, 0.5, 0.5))
    if order is not None:
        placed = place(problem, order, 0.5)
        assert sorted(chain(*order)) == sorted(chain(*items_of(schedule)))
        assert placed is None or problem.schedule(placed.orders, "relisted").num_actions == 3 * 8 * 12


def test_a_V_for_real_costs_that_no_order_beats():
    """6.2B of arXiv:2401.10241 in the memory of 1F1B: zbv is at .0601, the bound of the V in that memory at .0567."""
    schedule = zbv(8, 24)
    cost = unit(16, 2, F=29.718, I=29.444, W=19.927, p2p=0.527, freed_by_input_grad=0.5675)
    problem = problem_of(schedule, cost, limit=8.0)

    order = list_schedule(problem, items_of(schedule), ListPolicy(window=2, patience=1.0, leeway=0.5))

    placed = place(problem, order, 0.5, latest_starts(problem, order, [problem.bound] * 8))
    assert placed.step == pytest.approx(problem.bound, rel=1e-9)
