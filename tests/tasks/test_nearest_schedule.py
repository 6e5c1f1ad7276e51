"""What an author hears of an order of their own."""

from __future__ import annotations

import json

import pytest

from pipezoo.costs.unit import unit
from pipezoo.results.run_dir import read_result
from pipezoo.schedules.v_min import v_min
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import predict
from pipezoo.tasks import nearest_schedule as module
from pipezoo.tasks.nearest_schedule import lines, nearest_schedule
from tests.tasks.test_simulate import predicted, schedule, table

EARLY = "0F0,0F1,0B0,0F2,0B1,0B2\n1F0,1B0,1F1,1B1,1F2,1B2\n"
LATE = "0F0,0B0,0F1,0F2,0B1,0B2\n1F0,1B0,1F1,1B1,1F2,1B2\n"  # rank 0 forwards one microbatch too few at first


def simulated(tmp_path, text, **values):
    (file := tmp_path / "mine.csv").write_text(text)
    return predicted(tmp_path, schedule=schedule("from_csv", file=str(file)), **values)


def test_an_order_that_is_in_the_zoo_is_recognised(tmp_path):
    result, said = simulated(tmp_path, EARLY)

    assert result["nearest"]["schedule"] == "1f1b"
    assert (result["nearest"]["distance"], result["nearest"]["divergences"]) == (0.0, [])
    assert "nearest   1f1b: the same order\n" in said
    assert "its step 12 units (yours the same), bubble 25.0 % (yours 25.0 %), memory 2 (yours 2)" in said


def test_an_order_of_ones_own_hears_what_is_nearest_where_they_part_and_what_it_costs(tmp_path):
    result, said = simulated(tmp_path, LATE)

    assert result["nearest"] == {
        "schedule": "1f1b",
        "distance": pytest.approx(2 / 72),
        "crossed": 2,  # F1 before both halves of B0
        "pairs": 2 * 9 * 8 // 2,
        "divergences": ["rank 0, action 2: 0B0, there 0F1"],
        "step_seconds": 12,
        "bubble": {"makespan": 0.25, "span": 0.25},
        "peak_memory": 2,
        "step_ratio": 15 / 12,
    }
    assert "of 72 pairs of actions on a rank, 2 (2.8 %) run the other way round" in said
    assert "first on rank 0, action 2: 0B0, there 0F1" in said
    assert "its step 12 units (yours 25.0 % longer), bubble 25.0 % (yours 40.0 %), memory 2 (yours 2)" in said
    assert read_result(tmp_path) == json.loads(json.dumps(result))


def test_it_hears_that_its_order_is_legal_and_where_the_critical_path_goes(tmp_path):
    result, said = simulated(tmp_path, LATE)

    assert "legal     every action is there once" in said
    assert "path      0F0 > 1F0 > 1B0 > 0B0" not in said
    legs = result["prediction"]["critical_path"]["legs"]
    assert legs == ["rank 0: 0F0", "rank 1: 1F0 .. 1B0, 2 actions", "rank 0: 0B0 .. 0F1, 2 actions", *legs[3:]]
    assert "path      0F0 > 1F0 .. 1B0 (rank 1, 2 actions, 20 %) > 0B0 .. 0F1 (rank 0, 2 actions, 20 %) >" in said


def test_a_schedule_of_the_zoo_is_not_compared_with_the_zoo(tmp_path):
    result, said = predicted(tmp_path, num_ranks=2)

    assert "nearest" not in result
    assert "nearest" not in said
    assert "legal" not in said


def test_stages_that_no_fixed_schedule_places_so_have_no_neighbour(tmp_path):
    result, said = simulated(tmp_path, "0F0,2F0,2B0,0B0\n1F0,1B0\n")

    assert result["nearest"] == {"schedule": None, "why": "no fixed schedule has these stages on these ranks"}
    assert "nearest   none: no fixed schedule has these stages on these ranks" in said


def test_too_large_an_order_is_not_compared_and_that_is_said(monkeypatch):
    monkeypatch.setattr(module, "MOST_ACTIONS", 23)
    order, cost = zbv(2, 4), unit(4, 2)

    found = nearest_schedule(order, cost, prediction := predict(order, cost))

    assert lines(found, prediction, "unit") == ["nearest   none: not looked for among more than 23 actions"]


@pytest.mark.parametrize("function", [zbv, v_min])
def test_the_whole_zoo_is_looked_at(function):
    order, cost = function(4, 8), unit(8, 2)

    assert nearest_schedule(order, cost, predict(order, cost))["schedule"] == function.__name__


def test_costs_that_know_no_halves_still_have_a_neighbour(tmp_path):
    whole = table(stages={"F": 0.01, "B": 0.02, "activation_bytes": 1024.0})

    result, said = simulated(tmp_path, "0F0,0B0\n", cost=whole)

    assert result["nearest"]["schedule"] is not None
    assert "its step" in said or "step_seconds" not in result["nearest"]


def test_bytes_and_seconds_are_said_as_such():
    order = zbv(2, 4)
    cost = Cost.from_dict({"stages": [{"F": 0.01, "I": 0.01, "W": 0.01, "activation_bytes": 1024.0}] * 4})
    prediction = predict(order, cost)

    (_, figures) = lines(nearest_schedule(order, cost, prediction), prediction, "s")

    assert figures.strip().startswith("its step 250 ms (yours the same)")
    assert figures.endswith("memory 4 KiB (yours 4 KiB)")
