from __future__ import annotations

import pytest

from pipezoo.costs.unit import unit
from pipezoo.planner.problem import items_of
from pipezoo.planner.replace_weight_grads import replace_weight_grads
from pipezoo.schedule.action import Op
from pipezoo.schedules import fixed_orders
from pipezoo.schedules.dualpipev import dualpipev
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.memory import peak_memory
from pipezoo.simulator.simulate import predict


@pytest.mark.parametrize(
    ("function", "p", "m", "before", "after"),
    [
        (zbv, 4, 8, 0.1045, 0.0909),
        (zbv, 8, 16, 0.1241, 0.1078),
        (dualpipev, 4, 8, 0.1045, 0.0734),
        (dualpipev, 8, 16, 0.1304, 0.0960),
    ],
)
def test_with_hops_the_bubble_shrinks(function, p, m, before, after):
    schedule, cost = function(p, m), unit(2 * p, 2, p2p=0.1)

    replaced = replace_weight_grads(schedule, cost)

    assert round(predict(schedule, cost)["bubble"]["makespan"], 4) == before
    assert round(predict(replaced, cost)["bubble"]["makespan"], 4) <= after


@pytest.mark.parametrize("v", [1, 2])
def test_messages_stay_memory_does_not_grow_and_nothing_gets_slower(v):
    cost = unit(4 * v, v, F=1.0, I=1.1, W=0.6, p2p=0.2, freed_by_input_grad=0.4)
    for schedule in fixed_orders(4, 8, v):
        replaced = replace_weight_grads(schedule, cost, iterations=200)
        assert items_of(replaced) == items_of(schedule)
        assert (peak_memory(replaced, cost) <= peak_memory(schedule, cost) + 1e-9).all()
        assert predict(replaced, cost)["step_seconds"] <= predict(schedule, cost)["step_seconds"] + 1e-9


def test_what_cannot_be_better_stays_as_it_is():
    schedule = zbv(4, 8)
    assert replace_weight_grads(schedule, unit(8, 2)) is schedule


def test_backwards_that_are_cheaper_whole_are_split_only_where_that_helps():
    cost = Cost.from_dict({"stages": {"F": 1, "I": 2, "W": 2, "B": 2.5}}, 8)
    schedule = next(s for s in fixed_orders(4, 8, 2) if s.name == "hanayo")

    replaced = replace_weight_grads(schedule, cost)

    assert (replaced.op == Op.B).sum() == 60  # of 64
    assert predict(replaced, cost)["step_seconds"] < predict(schedule, cost)["step_seconds"]
