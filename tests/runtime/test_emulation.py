"""Emulated ranks: real messages and numbers, and each action takes exactly as long as the cost says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from pipezoo.costs.unit import unit
from pipezoo.models import MultiMLP
from pipezoo.runtime.emulation import Emulation
from pipezoo.runtime.measurements import measured_cost, timelines
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.schedule.action import Action, Op
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.cost import P2P, Cost
from pipezoo.simulator.simulate import simulate
from pipezoo.simulator.skip_messages import SkipMessage
from tests.support.pipelines import WIDTH, train

SLOW = partial(unit, F=0.02, I=0.03, W=0.01)  # seconds; a tenth of it is more than these stages compute


@pytest.mark.parametrize(
    ("schedule", "p2p"), [(one_f_one_b(4, 6), 0.0), (one_f_one_b(4, 6), 0.015), (zbv(4, 8), 0.0)], ids=str
)
def test_the_ranks_keep_to_the_cost_and_never_outrun_the_simulator(
    pipeline: Callable[..., Pipeline], schedule, p2p
) -> None:
    v = schedule.num_stages // schedule.num_ranks
    cost = SLOW(schedule.num_stages, v, p2p=p2p)
    slow = pipeline(partial(MultiMLP, WIDTH, schedule.num_stages), schedule, emulated=cost)

    trained = train(slow)
    measured, predicted = timelines(slow)[-1], simulate(schedule, cost)

    assert trained.verdict["verified"] == "exact"
    assert measured.num_spans == predicted.num_spans
    took = cost.seconds[measured.stage, measured.op]
    late = measured.end - measured.start > took + 1e-6  # the host was kept from its core for longer than that
    assert np.mean(late) < 0.1
    assert (measured.end - measured.start >= took - 1e-9).all()
    assert measured.makespan >= predicted.makespan - 1e-6
    assert measured_cost(slow, [measured], trained.told, None).seconds.tolist() == cost.seconds.tolist()


@pytest.fixture
def ranks(tmp_path: Path) -> list[Emulation]:
    """Two ranks with a stage each; F, I, W of 1 s and a p2p message of 2 s, so that no machine is too slow for it."""
    return [Emulation(unit(2, p2p=2.0), (0, 1), 4, tmp_path / "devices") for _ in range(2)]


def test_a_message_is_not_used_before_a_hop_after_its_sender_had_made_it(ranks: list[Emulation]) -> None:
    first, second = ranks
    now = perf_counter()

    first.end(0, Op.F, 0, now)
    second.end(1, Op.F, 0, now)
    first.end(0, Op.W, 3, now)
    second.end(1, Op.I, 0, now)

    assert second._spans == [(1, Op.F, 0, now + 3, now + 4), (1, Op.I, 0, now + 4, now + 5)]
    assert first._spans == [(0, Op.F, 0, now, now + 1), (0, Op.W, 3, now + 1, now + 2)]


def test_a_skip_is_not_used_before_it_can_have_come(tmp_path: Path) -> None:
    """3 s from stage 0 to stage 2, which the way through stage 1 does not take."""
    cost = Cost(F=[0.0] * 3, B=[0.0] * 3, p2p=P2P(0.0, 1.0), skips=[SkipMessage(0, 2, 3.0)])
    first, second, third = (Emulation(cost, (0, 1, 2), 1, tmp_path / "devices") for _ in range(3))
    now = perf_counter()

    for stage, rank in enumerate((first, second, third)):
        rank.end(stage, Op.F, 0, now)
    for stage, rank in ((2, third), (1, second), (0, first)):
        rank.end(stage, Op.B, 0, now)

    starts = [[span[3] - now for span in rank._spans] for rank in (first, second, third)]
    assert starts[0] == pytest.approx([0.0, 6.0], abs=0.5)  # forward; its gradient has come back twice as late
    assert starts[1] == pytest.approx([0.0, 3.0], abs=0.5)
    assert starts[2] == pytest.approx([3.0, 3.0], abs=0.5)


def test_a_host_that_is_slower_than_its_device_is_told_as_it_was(ranks: list[Emulation]) -> None:
    began = perf_counter() - 5

    ranks[0].end(0, Op.F, 0, began)

    ((*_, start, end),) = ranks[0]._spans
    assert start == began
    assert 5 <= end - start < 6


def test_what_the_device_has_not_made_is_not_sent(tmp_path: Path) -> None:
    rank, noted = Emulation(unit(2, F=0.05), (0, 1), 1, tmp_path / "devices"), []
    locked = rank.holding(noted.append, [Action(0, Op.F, 0), Action(0, Op.SEND_F, 0)])
    began = perf_counter()
    rank.end(0, Op.F, 0, began)

    locked(0)
    at_once = perf_counter()
    locked(1)
    sent = perf_counter()
    locked(2)

    assert noted == [0, 1, 2]
    assert at_once < began + 0.05 <= sent
