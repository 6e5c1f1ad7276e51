from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipezoo.explain.alternatives import LEAST_ERROR, LEAST_VIRTUAL_ERROR, Measured, alternatives
from pipezoo.results.result import Prediction, Result, Spread
from pipezoo.schedules.dualpipev import dualpipev
from pipezoo.schedules.gpipe import gpipe
from pipezoo.schedules.interleaved_1f1b import interleaved_1f1b
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import simulate

HALVES = {"F": [1, 1], "I": [1, 1], "W": [1, 1]}


def run_of(schedule, cost, factor=1.0, error=0.05):
    predicted = simulate(schedule, cost).step
    return Measured(cost, predicted * factor, predicted, error)


def test_every_fixed_schedule_of_these_sizes_is_one_the_fastest_first():
    found = alternatives(gpipe(2, 4), run_of(gpipe(2, 4), Cost(**HALVES)))
    by_name = {one.name: one.step for one in found}

    assert list(by_name.values()) == sorted(by_name.values())
    assert by_name["zb_h2"] == 13
    assert by_name["1f1b"] == simulate(gpipe(2, 4), Cost(**HALVES)).step == 15
    assert not {"gpipe", "zbv"} & set(by_name)  # the run's own, and one for two stages on a rank


def test_steps_are_scaled_by_what_the_run_took_over_its_prediction():
    found = alternatives(gpipe(2, 4), run_of(gpipe(2, 4), Cost(**HALVES), factor=1.5))

    assert next(one for one in found if one.name == "zb_h2").step == pytest.approx(13 * 1.5)


def test_neighbouring_stages_are_put_together_where_a_rank_has_several():
    cost = Cost(F=[1, 2, 3, 4], B=[2, 2, 2, 2], activation_bytes=[1, 2, 3, 4], output_bytes=[5, 6, 7, 0])
    found = alternatives(interleaved_1f1b(2, 4, 2), run_of(interleaved_1f1b(2, 4, 2), cost))
    joined = next(one for one in found if one.name == "1f1b")

    assert joined.num_stages == 2
    assert joined.step == simulate(joined.order, Cost(F=[3, 7], B=[4, 4])).step


def test_halves_that_the_run_never_saw_are_assumed_and_said():
    found = {one.name: one for one in alternatives(gpipe(2, 4), run_of(gpipe(2, 4), Cost(F=[1, 1], B=[2, 2])))}

    assert found["zb_h2"].assumed == "I and W take half of B each"
    assert found["1f1b"].assumed == ""


def test_the_runs_own_order_is_tried_with_its_weight_gradients_moved():
    cost = Cost(F=[1] * 4, I=[1] * 4, W=[1] * 4, p2p=0.5)
    found = alternatives(dualpipev(2, 4), run_of(dualpipev(2, 4), cost))
    moved = [one for one in found if not one.choice]

    assert [one.name for one in moved] == ["dualpipev, W moved"]
    assert moved[0].step < simulate(dualpipev(2, 4), cost).step


def told(median, predicted, shortest):
    cost = Cost(F=[1, 1], B=[2, 2]).to_dict()
    spread = Spread(median=median, min=shortest, max=2 * median)
    return Result(step_seconds=spread, prediction=Prediction(step_seconds=predicted, cost=cost))


@pytest.mark.parametrize(
    ("median", "predicted", "shortest", "error"),
    [(10.0, 10.0, 10.0, LEAST_ERROR), (10.0, 9.0, 10.0, 0.1), (10.0, 9.2, 9.4, 0.1)],
    ids=["never less than two runs differ", "of the prediction", "and of the steps"],
)
def test_an_error_bar_is_as_wide_as_the_runs_own_error(median, predicted, shortest, error):
    assert Measured.of(told(median, predicted, shortest)).error == pytest.approx(error)


def test_virtual_ranks_have_narrower_bars():
    told_by_virtual_ranks = replace(told(10.0, 10.0, 10.0), launch="virtual")
    assert Measured.of(told_by_virtual_ranks).error == LEAST_VIRTUAL_ERROR < LEAST_ERROR


def test_a_run_without_steps_says_nothing():
    assert Measured.of(Result(task="simulate")) is None
    assert np.isnan(Measured.of(told(1.0, 1.0, 1.0)).cost.seconds[:, 2]).all()
