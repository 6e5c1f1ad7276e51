from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from pipezoo.costs.file import read
from pipezoo.report.html import run_page
from pipezoo.results.fields import rows
from pipezoo.results.result import Bubble, Bubbles, Memory, Prediction, Result, Spread, table
from pipezoo.results.run import read_run
from pipezoo.results.run_dir import write_json
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.zb_h1 import zb_h1
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import simulate
from tests.support.run_folders import result as anything

OLD = Path(__file__).parent / "folder_of_0_1_0"  # what pipezoo 0.1.0 left behind, under its own names


def test_a_result_is_the_same_after_its_file(tmp_path: Path) -> None:
    schedule = zb_h1(2, 4)
    told = simulate(schedule, Cost.from_dict({"stages": {"F": 1, "I": 1, "W": 1}}, 2)).result()
    written = Result(
        status="ok",
        task="train",
        num_ranks=2,
        verified="exact",
        losses=[2.5, 1.25],
        step_seconds=Spread(median=1.0, min=0.5, max=2.0),
        bubble=Bubbles(predicted=Bubble(**told["bubble"])),
        memory=Memory(measured=[1.0, 2.0], predicted=told["peak_memory"]),
        prediction=Prediction.of(told, step_error=0.25),
        others={"mine": [1, {"a": None}]},
    )
    write_json(tmp_path / "result.json", written.to_dict())
    assert Result.of(tmp_path) == written


def test_what_does_not_apply_is_left_out_but_for_the_verdict() -> None:
    assert Result(status="ok").to_dict() == {"verified": None, "status": "ok"}


def test_what_the_report_is_tested_with_loses_nothing() -> None:
    told = json.loads(json.dumps(anything()))
    assert {key: value for key, value in Result.from_dict(told).to_dict().items() if value is not None} == told


@pytest.mark.parametrize(
    "value", [None, True, "x", 1, 1.5, [1], {"a": 1}, [None], float("nan"), float("inf"), 2**2000, -1]
)
def test_whatever_stands_in_a_field_it_is_of_its_type_or_none(value: object) -> None:
    names = [field.name for field in dataclasses.fields(Result) if field.name != "others"]
    found = Result.from_dict(dict.fromkeys(names, value))
    assert found.model in (value, None)
    assert found.model is None or isinstance(found.model, str)
    assert found.samples_per_second is None or isinstance(found.samples_per_second, float)
    assert found.num_ranks is None or type(found.num_ranks) is int
    assert found.step_seconds is None or isinstance(found.step_seconds, Spread)
    assert found.losses is None or all(loss is None or isinstance(loss, float) for loss in found.losses)


def test_unknown_keys_are_kept_beside_the_fields() -> None:
    found = Result.from_dict({"status": "ok", "of_tomorrow": {"a": 1}})
    assert found.others == {"of_tomorrow": {"a": 1}}
    assert found.to_dict() == {"verified": None, "status": "ok", "of_tomorrow": {"a": 1}}


def test_reading_changes_nothing_of_what_was_given() -> None:
    given = {"prediction": {"cost": {"stages": [{"F": 1.0, "B": 2.0, "keeps": 3.0}]}}}
    Result.from_dict(given)
    assert given["prediction"]["cost"]["stages"] == [{"F": 1.0, "B": 2.0, "keeps": 3.0}]


def test_every_field_says_what_it_means() -> None:
    assert [name for name, meaning, _ in rows(Result) if not meaning] == []


def test_the_documented_table_is_that_of_the_fields() -> None:
    page = Path(__file__).parents[2] / "docs" / "result-folder.md"
    assert table() in page.read_text(encoding="utf-8"), "run: python -m benchmarks.documents"


def test_a_folder_of_an_older_version_opens_under_the_names_of_today() -> None:
    found = Result.of(OLD)
    assert (found.status, found.verified, found.num_ranks, found.schedule) == ("ok", "exact", 2, "zb_h1")
    assert found.versions == {"pipezoo": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.7"}
    assert found.git is None
    assert found.others == {"first": None}
    assert found.prediction is not None
    assert found.prediction.cost is not None
    first, last = found.prediction.cost["stages"]
    assert set(first) == {"F", "I", "W", "activation_bytes", "output_bytes"}
    assert (first["activation_bytes"], first["output_bytes"]) == (256.0, 160.0)
    assert (last["activation_bytes"], last["freed_by_input_grad"]) == (512.0, 256.0)
    assert found.prediction.cost["p2p"] == {"latency": 0.0}


def test_the_timelines_of_an_older_version_are_those_of_its_trace() -> None:
    run = read_run(OLD)
    assert run.problems == []
    assert [stage["activation_bytes"] for stage in run.costs] == [256.0, 512.0]
    assert [(line.source, line.num_ranks, line.num_spans, line.unit) for line in run.timelines] == [
        ("predicted", 2, 12, "s"),
        ("measured", 2, 12, "s"),
    ]
    bubble = Result.of(OLD).bubble
    assert bubble is not None
    assert bubble.measured is not None
    assert run.timelines["measured"].bubbles()["makespan"] == pytest.approx(bubble.measured.makespan, abs=1e-9)


def test_its_page_its_order_and_its_costs_can_be_used_again() -> None:
    page = run_page(read_run(OLD))
    assert "verified exact" in page
    assert "bit for bit what one device computes" in page
    order = Schedule.from_csv(OLD / "schedule.csv")
    assert simulate(order, read(2, file=OLD)).makespan == pytest.approx(
        Result.of(OLD).prediction.makespan_seconds  # type: ignore[union-attr]
    )
