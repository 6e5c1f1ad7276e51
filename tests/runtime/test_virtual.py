"""Virtual ranks: the same numbers as real ones, each action placed on a clock of its own rank."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from pipezoo.launch import Virtual
from pipezoo.models import ModelWithParamAlias, MultiMLP, MultiMLPWithDw
from pipezoo.runtime.measurements import measured_cost, message_bytes, timelines
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.schedule.event_loop import run_event_loop
from pipezoo.schedule.lowering import lower
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.cost import P2P
from pipezoo.simulator.simulate import simulate
from pipezoo.splitters.marked import split as split_marked
from tests.support.pipelines import WIDTH, train


@pytest.fixture
def virtual(pipeline: Callable[..., Pipeline]) -> Callable[..., Pipeline]:
    def build(model: Any, schedule: Any, *rest: Any, **changes: Any) -> Pipeline:
        placed = (0,) * schedule.num_stages
        return pipeline(
            model, schedule, *rest, actions=lower(schedule, placed), stage_to_rank=placed, record_steps=3, **changes
        )

    return build


@pytest.mark.parametrize(
    ("model", "schedule"),
    [
        (partial(MultiMLP, WIDTH, 16), one_f_one_b(16, 16)),
        (partial(MultiMLP, WIDTH, 8), zbv(4, 8)),
        (partial(MultiMLPWithDw, WIDTH, 4), zbv(2, 4)),
    ],
    ids=["1f1b on 16 ranks", "zbv on 4", "own weight gradient"],
)
def test_virtual_ranks_are_exact(virtual: Callable[..., Pipeline], model: Any, schedule: Any) -> None:
    own = model.func is MultiMLPWithDw
    assert train(virtual(model, schedule, own_weight_gradient=own)).verdict["verified"] == "exact"


def test_tied_weights_of_virtual_ranks_are_one_tensor(virtual: Callable[..., Pipeline]) -> None:
    trained = train(virtual(partial(ModelWithParamAlias, WIDTH), one_f_one_b(2, 4), split_marked, extra=["y"]))
    assert trained.verdict["verified"] in ("exact", "close")
    assert trained.verdict["max_relative_difference"] < 1e-6


def test_each_action_takes_its_measured_time_on_the_virtual_clock(virtual: Callable[..., Pipeline]) -> None:
    ranks = virtual(partial(MultiMLP, WIDTH, 4), one_f_one_b(4, 4))
    train(ranks)
    placed = Virtual(latency=0.25).timelines(timelines(ranks), ranks.schedule, message_bytes(ranks))
    assert len(placed) == 3  # every step is recorded
    real, timeline = timelines(ranks)[-1], placed[-1]
    assert timeline.num_ranks == 4
    assert np.sort(timeline.end - timeline.start) == pytest.approx(np.sort(real.end - real.start), abs=1e-9)
    schedule = ranks.schedule
    crosses = (schedule.source >= 0) & (schedule.rank[schedule.source] != schedule.rank)
    expected = run_event_loop(
        schedule.offsets, schedule.source, timeline.end - timeline.start, np.where(crosses, 0.25, 0.0)
    )
    assert timeline.end == pytest.approx(expected)
    assert timeline.makespan > 2 * 3 * 0.25  # three p2p messages there and three back


def test_the_prediction_from_its_own_costs_is_near_what_the_virtual_clock_shows(
    virtual: Callable[..., Pipeline],
) -> None:
    ranks = virtual(partial(MultiMLP, WIDTH, 4), one_f_one_b(4, 4))
    told = train(ranks).told
    p2p = P2P(latency=0.5)  # far longer than any action, so that noise does not matter
    placed = Virtual(latency=0.5).timelines(timelines(ranks), ranks.schedule, message_bytes(ranks))
    cost = measured_cost(ranks, placed, told, p2p)
    sizes = [sum(value.nbytes for value in module.parameters()) for module in ranks.stages.modules]
    assert cost.grad_bytes.tolist() == sizes
    predicted = simulate(ranks.schedule, cost)
    assert predicted.makespan == pytest.approx(placed[-1].makespan, rel=0.02)
