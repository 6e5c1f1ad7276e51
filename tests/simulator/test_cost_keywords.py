"""``Cost(F=1, I=1, W=0.5)``: costs from numbers, for every stage or one each."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pipezoo.errors import ArgumentError
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.cost import P2P, Cost
from pipezoo.simulator.simulate import simulate


def test_numbers_stand_for_every_stage_of_whatever_schedule():
    cost = Cost(F=1, I=1, W=0.5, p2p=0.1, activation_bytes=3)

    assert cost.for_every_stage
    assert cost.for_stages(2) == Cost(np.tile([1, np.nan, 1, 0.5], (2, 1)), activation_bytes=3, p2p=P2P(0.1))
    assert cost.for_stages(2).derived == ["B = I + W on every stage"]
    assert simulate(zbv(4, 8), cost).makespan == simulate(zbv(4, 8), cost.for_stages(8)).makespan


def test_a_list_is_one_number_a_stage():
    cost = Cost(F=[1, 1, 2], B=2, output_bytes=[10, 20, 30])

    assert (cost.num_stages, cost.for_every_stage) == (3, False)
    assert [cost.F.tolist(), cost.B.tolist(), cost.output_bytes.tolist()] == [[1, 1, 2], [2, 2, 2], [10, 20, 30]]
    assert np.isnan(cost.I).all()
    assert np.isnan(cost.W).all()
    assert cost.for_stages(7) is cost


def test_a_share_divides_times_and_activations_but_no_message():
    half = Cost(F=1, I=1, W=1, activation_bytes=4, output_bytes=6, p2p=0.5).share(2)

    assert half == Cost(F=0.5, I=0.5, W=0.5, activation_bytes=2, output_bytes=6, p2p=0.5)


def test_it_is_written_down_and_read_again():
    cost = Cost(F=1, B=2, p2p=0.5)

    assert Cost.from_dict(cost.to_dict(), 4) == cost.for_stages(4)
    assert replace(cost, unit="unit").unit == "unit"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"F": [1, 2], "B": [1, 2, 3]}, "B: is of 3 stages, but F is of 2"),
        ({"F": "x", "B": 1}, "F=x: must be a number, or a list with one for each stage"),
        ({"F": [], "B": 1}, "F=[]: must be a number, or a list with one for each stage"),
        ({"F": 1}, "stages[0].B: is missing; give B, or I and W, or all three"),
        ({"F": -1, "B": 1}, "stages[0].F=-1.0: must be a number >= 0"),
        ({"F": 1, "B": 1, "p2p": -1}, "p2p=-1: must be a number >= 0"),
        ({"seconds": [[1, 2, 1, 1]], "F": 1}, "seconds: is the table of F, B, I and W; give one or the other"),
    ],
)
def test_what_is_no_cost_is_refused(arguments, text):
    with pytest.raises(ArgumentError) as refused:
        Cost(**arguments)
    assert str(refused.value) == text


def test_the_costs_of_a_run_come_from_its_folder(tmp_path):
    cost = Cost(F=[1, 2], B=[2, 4], activation_bytes=8)
    (tmp_path / "result.json").write_text(json.dumps({"prediction": {"cost": cost.to_dict()}}))

    assert Cost.from_run(tmp_path) == cost
    with pytest.raises(ArgumentError, match="holds no run that can be read"):
        Cost.from_run(tmp_path / "nothing")


def test_it_is_one_line():
    assert repr(Cost(F=1, I=1, W=0.5, p2p=0.1)) == "Cost(every stage: F 1, B 1.5, I 1, W 0.5; p2p 0.1 s)"
    assert repr(Cost(F=[1, 2], B=3)) == "Cost(2 stages: F 1 .. 2, B 3; p2p 0 s)"


@pytest.mark.parametrize("text", ["[]", "3", '{"prediction": 3}', '{"cost": []}'])
def test_a_result_that_knew_no_costs_is_refused_whatever_stands_there(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match="this run knew no costs"):
        Cost.from_run(tmp_path)
