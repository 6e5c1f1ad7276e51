"""A step replayed on the virtual clock takes what the simulator says, messages past other stages included."""

from __future__ import annotations

import numpy as np
import pytest

from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules import generators
from pipezoo.simulator.bubble_causes import causes_of_run, causes_of_simulation
from pipezoo.simulator.cost import P2P, Cost
from pipezoo.simulator.simulate import simulate
from pipezoo.simulator.skip_messages import SkipMessage
from pipezoo.simulator.timeline import Timeline
from pipezoo.simulator.virtual_clock import MessageBytes, replay

P2P_ = P2P(0.1, 10.0)
SKIPS = (SkipMessage(0, 3, 40.0), SkipMessage(1, 3, 15.0))
SCHEDULES = [("one_f_one_b", 4, 1), ("zb_h1", 4, 1), ("zbv", 2, 2), ("interleaved_1f1b", 2, 2), ("gpipe", 4, 1)]


def cost(skips: tuple[SkipMessage, ...] = SKIPS) -> Cost:
    return Cost(F=[1.0, 1.1, 0.9, 1.0], I=[1.0] * 4, W=[0.7] * 4, p2p=P2P_, output_bytes=2.0, skips=skips)


def one_by_one(schedule: Schedule, costs: Cost) -> Timeline:
    """The actions one after the other, as one process runs them."""
    took = costs.seconds[schedule.stage, schedule.op]
    end = np.cumsum(took)
    return Timeline.of(schedule, end - took, end, "measured")


def sizes(skips: tuple[SkipMessage, ...] = SKIPS) -> MessageBytes:
    return MessageBytes([0.0, 2.0, 2.0, 2.0, 0.0], skips)


@pytest.mark.parametrize(("name", "ranks", "v"), SCHEDULES)
@pytest.mark.parametrize("skips", [(), SKIPS], ids=["plain", "skips"])
def test_a_replay_is_what_the_simulator_says(name, ranks, v, skips):
    schedule = generators()[name](ranks, 4, v)
    played = replay(schedule, one_by_one(schedule, cost()), P2P_, sizes(skips))
    assert played.end == pytest.approx(simulate(schedule, cost(skips)).end)


def test_skips_are_slower_than_the_way_through_the_others_here():
    schedule = generators()["one_f_one_b"](4, 4, 1)
    assert simulate(schedule, cost()).makespan > simulate(schedule, cost(())).makespan + 1


@pytest.mark.parametrize(("name", "ranks", "v"), SCHEDULES)
def test_what_skips_hold_up_is_due_to_messages(name, ranks, v):
    schedule = generators()[name](ranks, 4, v)
    simulation = simulate(schedule, cost())
    measured = replay(schedule, one_by_one(schedule, cost()), P2P_, sizes())
    p2p = cost().p2p_seconds(schedule.stage_to_rank)
    told = causes_of_run(schedule, measured, p2p=p2p, skips=cost().skip_seconds(schedule.stage_to_rank)).shares()
    expected = causes_of_simulation(simulation).shares()
    assert told["dispatch"] == pytest.approx(0.0, abs=1e-9)
    assert told["messages"] == pytest.approx(expected["messages"], abs=1e-9)


def test_a_skip_that_is_forgotten_is_taken_for_dispatch():
    schedule = generators()["one_f_one_b"](4, 4, 1)
    measured = replay(schedule, one_by_one(schedule, cost()), P2P_, sizes())
    assert causes_of_run(schedule, measured, p2p=cost().p2p_seconds(schedule.stage_to_rank)).shares()["dispatch"] > 0.01


def test_within_a_rank_a_skip_takes_no_time():
    schedule = generators()["zbv"](2, 4, 2)
    slow = (SkipMessage(0, 3, 1e6),)  # both on rank 0
    real = one_by_one(schedule, cost())
    assert (
        replay(schedule, real, P2P_, sizes(slow)).end.tolist() == replay(schedule, real, P2P_, sizes(())).end.tolist()
    )
