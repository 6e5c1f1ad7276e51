from __future__ import annotations

import math

import numpy as np
import pytest

from pipezoo.costs.unit import unit
from pipezoo.planner.problem import Problem, items_of
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zb_h1 import zb_h1
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.cost import Cost


def in_a_line(p, m, limit=math.inf, **costs):
    return Problem(unit(p, **costs), tuple(range(p)), m, (limit,) * p)


def test_items_leave_weight_halves_out_and_count_a_whole_backward_as_its_input_half():
    assert items_of(zb_h1(2, 2)) == [[0, 1, 4, 5], [2, 6, 3, 7]]
    assert items_of(one_f_one_b(2, 2)) == [[0, 1, 4, 5], [2, 6, 3, 7]]


def test_items_become_the_schedule_they_came_from():
    schedule = zbv(3, 6)
    problem = Problem(unit(6, 2), schedule.stage_to_rank, 6, (math.inf,) * 3)
    items = []
    for order in schedule.order:
        part = {0: 0, 2: 1, 3: 2}
        items.append([(part[a.op] * 6 + a.stage) * 6 + a.microbatch for a in order])
    assert problem.schedule(items, "again") == schedule


@pytest.mark.parametrize("p", [1, 2, 4, 8])
def test_without_a_limit_the_bound_is_the_closed_form(p):
    assert in_a_line(p, 3 * p, p2p=0.5).bound == (p - 1) * 1.5 + 9 * p


def test_a_rank_of_a_V_that_fills_its_memory_waits_for_its_first_gradient():
    """Four ranks, messages of 1/2: the last rank starts at 3, holds 8 stages of 1/2 for 4, has a gradient at 8.5."""
    place = (0, 1, 2, 3, 3, 2, 1, 0)
    problem = Problem(unit(8, 2, p2p=0.5), place, 8, (4.0,) * 4)

    assert problem.first(4, 1) == 4 + 6 * 0.5 + 3 * (0.5 + 0.5)
    assert problem.plain_bound == 3 + 24
    assert problem.bound == 3 + 24 + (10.0 - 3.0 - 4.0)


def test_messages_without_overlap_are_part_of_the_work():
    problem = Problem(
        Cost.from_dict({"stages": {"F": 1, "I": 1, "W": 1}, "p2p": {"latency": 1}, "overlap": False}, 2),
        (0, 1),
        4,
        (math.inf, math.inf),
    )
    assert problem.work(0) == problem.work(1) == 4 * 5


def test_costs_that_know_whole_backwards_alone_are_refused():
    with pytest.raises(ValueError, match=r"^stages\[0\]\.W: is missing; a planned order splits the backward"):
        Problem(Cost.from_dict({"stages": {"F": 1, "B": 2}}, 2), (0, 1), 4, (math.inf,) * 2)


def test_the_span_bound_knows_the_way_of_the_last_gradient():
    """The 1.5B row of arXiv:2401.10241, whose ZB-2p meets it: .0433."""
    cost = unit(8, F=18.522, I=18.086, W=9.337, p2p=0.601)
    problem = Problem(cost, tuple(range(8)), 24, (16.0,) * 8)
    work = 24 * (18.522 + 18.086 + 9.337)
    assert np.round(1 - work / problem.span_bound, 4) == 0.0433
