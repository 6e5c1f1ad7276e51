"""Orders that are made for a model with skips: what the search says of an order is what the simulator says."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipezoo.planner.list_scheduling import ListPolicy, list_schedule
from pipezoo.planner.local_search import end_times
from pipezoo.planner.problem import Problem, complete_items_of, items_of
from pipezoo.planner.search import Search
from pipezoo.planner.weight_placement import latest_starts, place
from pipezoo.schedules.zb_h1 import zb_h1
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.cost import P2P, Cost
from pipezoo.simulator.simulate import predict, simulate
from pipezoo.simulator.skip_messages import SkipMessage

SKIPS = (SkipMessage(0, 3, 40.0), SkipMessage(1, 3, 12.0))
SCHEDULES = [zb_h1(4, 8), zbv(2, 6), zbv(4, 6)]


def cost_of(schedule, overlap=True, skips=SKIPS):
    uneven = [1.0 + 0.1 * stage for stage in range(schedule.num_stages)]
    times = {"F": uneven, "I": uneven, "W": [0.6] * schedule.num_stages}
    return Cost(**times, p2p=P2P(0.1, 10.0), output_bytes=1.0, activation_bytes=1.0, overlap=overlap, skips=skips)


def problem_of(schedule, cost):
    return Problem(cost, schedule.stage_to_rank, schedule.num_microbatches, (1e9,) * schedule.num_ranks)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_an_order_ends_when_the_simulator_says(schedule, overlap):
    cost = cost_of(schedule, overlap)
    problem = problem_of(schedule, cost)
    ends, _ = end_times(problem, complete_items_of(schedule))
    assert ends.step == pytest.approx(simulate(schedule, cost).step)
    placed = place(problem, items_of(schedule), 0.5)
    assert placed.step == pytest.approx(predict(problem.schedule(placed.orders, "placed"), cost)["step_seconds"])


def test_skips_hold_up_these_orders():
    for schedule in SCHEDULES[:1] + SCHEDULES[2:]:
        plain = cost_of(schedule, skips=())
        assert predict(schedule, cost_of(schedule))["step_seconds"] > predict(schedule, plain)["step_seconds"] + 1


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_what_is_found_takes_what_was_said_and_is_not_worse_than_the_start(schedule, overlap):
    cost = cost_of(schedule, overlap)
    problem = problem_of(schedule, cost)
    found = Search(problem).run([schedule], iterations=30)
    made = predict(problem.schedule(found.orders, "found"), cost)["step_seconds"]
    assert made == pytest.approx(found.step)
    assert made <= predict(schedule, cost)["step_seconds"] + 1e-9


def test_a_search_that_knows_skips_finds_a_better_order_than_one_that_does_not():
    schedule = zbv(4, 6)
    knows, blind = cost_of(schedule, skips=(SkipMessage(0, 3, 60.0),)), cost_of(schedule, skips=())
    steps = []
    for cost in (knows, blind):
        problem = Problem(cost, schedule.stage_to_rank, 6, (12.0,) * 4)
        found = Search(problem).run([schedule], iterations=60)
        steps.append(predict(problem.schedule(found.orders, "found"), knows)["step_seconds"])
    assert steps[0] < 0.97 * steps[1]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(SCHEDULES), st.floats(0.5, 80.0))
def test_so_it_is_for_other_orders_and_skips(seed, schedule, num_bytes):
    skips = (SkipMessage(0, schedule.num_stages - 1, num_bytes), SkipMessage(0, 2, num_bytes / 2))
    cost = replace(cost_of(schedule), skips=skips)
    problem, chance = problem_of(schedule, cost), random.Random(seed)
    policy = ListPolicy(chance.randint(1, 4), chance.random(), chance.random())
    orders = list_schedule(problem, items_of(schedule), policy)
    placed = place(problem, items_of(schedule) if orders is None else orders, chance.random())
    made = problem.schedule(placed.orders, "made")
    assert placed.step == pytest.approx(predict(made, cost)["step_seconds"])
    ends = [float(simulate(made, cost).end[last - 1]) for last in made.offsets[1:].tolist()]
    without_weights = [[item for item in order if item < len(problem.source)] for order in placed.orders]
    latest = latest_starts(problem, without_weights, ends)
    starts = dict(zip(_items(made), simulate(made, cost).start.tolist(), strict=True))
    assert all(starts[item] <= latest[item] + 1e-9 for item in starts if item < len(latest))


def _items(schedule):
    return [item for order in complete_items_of(schedule) for item in order]
