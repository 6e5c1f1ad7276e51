from __future__ import annotations

from itertools import chain

import pytest

from pipezoo.costs.unit import unit
from pipezoo.planner.local_search import end_times, move_weight_grads
from pipezoo.planner.problem import Problem, complete_items_of, items_of
from pipezoo.planner.replace_weight_grads import replace_weight_grads
from pipezoo.schedules.dualpipev import dualpipev
from pipezoo.schedules.zb_h1 import zb_h1
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.memory import peak_memory
from pipezoo.simulator.simulate import predict


def problem_of(schedule, cost):
    limit = tuple(peak_memory(schedule, cost).tolist())
    return Problem(cost, schedule.stage_to_rank, schedule.num_microbatches, limit)


@pytest.mark.parametrize("schedule", [zb_h1(4, 8), zbv(4, 8)], ids=lambda s: s.name)
def test_a_played_order_ends_when_the_simulator_says(schedule):
    cost = unit(schedule.num_stages, schedule.num_stages // 4, F=3, I=2, W=1, p2p=0.4)
    ends, span = end_times(problem_of(schedule, cost), complete_items_of(schedule))
    prediction = predict(schedule, cost)
    assert ends.step == pytest.approx(prediction["step_seconds"])
    assert 1 - 8 * 6 / span == pytest.approx(prediction["bubble"]["span"])


def test_an_order_that_waits_for_itself_never_ends():
    schedule = zb_h1(2, 2)
    orders = complete_items_of(schedule)
    assert end_times(problem_of(schedule, unit(2)), [orders[0][::-1], orders[1]])[0].step == float("inf")


def test_moved_weight_halves_leave_the_rest_and_the_memory_as_they_are():
    schedule, cost = zbv(8, 16), unit(16, 2, p2p=0.2)
    problem = problem_of(schedule, cost)

    placed = move_weight_grads(problem, complete_items_of(schedule), iterations=500)

    made = problem.schedule(placed.orders, "moved")
    assert items_of(made) == items_of(schedule)
    assert sorted(chain(*placed.orders)) == sorted(chain(*complete_items_of(schedule)))
    assert (peak_memory(made, cost) <= peak_memory(schedule, cost) + 1e-9).all()
    assert placed.step == pytest.approx(predict(made, cost)["step_seconds"])
    assert placed.step < predict(schedule, cost)["step_seconds"]


def test_the_same_seed_moves_the_same_weight_halves():
    schedule, cost = zbv(4, 8), unit(8, 2, p2p=0.3)
    items = complete_items_of(schedule)
    assert move_weight_grads(problem_of(schedule, cost), items, 200, seed=3) == move_weight_grads(
        problem_of(schedule, cost), items, 200, seed=3
    )


@pytest.mark.parametrize(("p2p", "times"), [(0.2, 1.07), (0.3, 1.075)])
def test_dualpipev_is_seven_percent_faster_where_a_hop_is_a_fifth_of_a_forward(p2p, times):
    schedule, cost = dualpipev(8, 16), unit(16, 2, p2p=p2p)
    replaced = replace_weight_grads(schedule, cost)
    assert predict(schedule, cost)["step_seconds"] / predict(replaced, cost)["step_seconds"] >= times
