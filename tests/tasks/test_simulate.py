from __future__ import annotations

import json
import subprocess
import sys
from html import unescape

import pytest

from pipezoo.costs.unit import unit
from pipezoo.errors import ConfigError
from pipezoo.experiment.component import Component
from pipezoo.experiment.experiment import Experiment
from pipezoo.launch import Processes
from pipezoo.report.html import run_page
from pipezoo.results import timeline_file
from pipezoo.results.run import read_run
from pipezoo.results.run_dir import read_result
from pipezoo.results.timeline_file import load_timelines
from pipezoo.schedule.schedule import Schedule
from pipezoo.tasks import simulate

NONE = Component("model", "none", "never.called")
UNIT = Component("cost", "unit", "pipezoo.costs.unit.unit", {}, given=("num_stages", "stages_per_rank"))
STAGE = {"F": 0.01, "I": 0.02, "W": 0.03, "activation_bytes": 1000.0, "optimizer": 0.5}


def schedule(name, **arguments):
    given = ("num_ranks", "num_microbatches", "stages_per_rank") if name != "from_csv" else ()
    return Component("schedule", name, f"pipezoo.schedules.{name}.{name}", arguments, given=given)


def table(**arguments):
    return Component("cost", "table", "pipezoo.costs.table.table", arguments, given=("num_stages", "stages_per_rank"))


def predicted(folder, **values):
    """The result of task=simulate, and what it said."""
    parts = dict.fromkeys(("model", "data", "split", "optimizer", "loss", "executor"), NONE)
    values = {"schedule": schedule("zb_h1"), "cost": UNIT, **values}
    said = []
    experiment = Experiment(task="simulate", launch=Processes(), launch_name="processes", **parts | values)
    return simulate.run(experiment, folder, said.append), "\n".join(said)


def test_it_predicts_what_the_closed_form_says(tmp_path):
    result, said = predicted(tmp_path, num_ranks=4, num_microbatches=8)

    assert result["step_seconds"] == {"median": 3 * 8 + 3}
    assert result["time_unit"] == "unit"
    assert result["bubble"]["predicted"]["makespan"] == pytest.approx(3 / 27)
    assert result["memory"] == {"predicted": [4, 4, 4, 4]}
    assert result["prediction"]["gap"] == pytest.approx(0, abs=1e-12)
    assert "step      27 units" in said


def test_its_folder_holds_the_result_the_order_and_the_timeline(tmp_path):
    result, _ = predicted(tmp_path, num_ranks=2, num_microbatches=4)

    assert read_result(tmp_path) == json.loads(json.dumps(result))
    assert Schedule.from_csv(tmp_path / "schedule.csv").num_microbatches == 4
    (timeline,) = load_timelines(tmp_path)
    assert (timeline.source, timeline.num_spans, timeline.makespan) == ("predicted", 2 * 4 * 3, 13)


def test_the_costs_of_one_prediction_are_a_file_for_the_next(tmp_path):
    (first := tmp_path / "first").mkdir()
    (second := tmp_path / "second").mkdir()
    before, _ = predicted(first, num_ranks=2, cost=table(stages=[STAGE, STAGE | {"F": 0.04}]))
    file = Component(
        "cost", "file", "pipezoo.costs.file.read", {"file": str(first)}, given=("num_stages", "stages_per_rank")
    )

    after, _ = predicted(second, num_ranks=2, cost=file)

    assert after["step_seconds"] == before["step_seconds"]


def test_the_optimizer_belongs_to_the_step(tmp_path):
    result, said = predicted(tmp_path, num_ranks=2, cost=table(stages=STAGE))

    prediction = result["prediction"]
    assert prediction["step_seconds"] == pytest.approx(prediction["makespan_seconds"] + 0.5)
    assert "500 ms of it after the last backward" in said
    assert "memory    2000 bytes at the peak of rank 0" in said


def test_a_file_says_all_numbers_itself(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("0F0,0B0\n1F0,1B0\n")

    result, _ = predicted(tmp_path, schedule=schedule("from_csv", file=str(file)))

    assert (result["num_stages"], result["num_ranks"], result["num_microbatches"]) == (2, 2, 1)
    assert result["step_seconds"] == {"median": 6}


def test_a_large_timeline_is_not_written_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(timeline_file, "MOST_SPANS", 23)

    _, said = predicted(tmp_path, num_ranks=2, num_microbatches=4)

    assert not (tmp_path / "timeline.npz").exists()
    assert "timeline  not written: 24 spans, of 23 at most" in said
    page = run_page(read_run(tmp_path))
    assert "Not drawn: not written: 24 spans, of 23 at most." in page
    assert (tmp_path / "timeline.txt").read_text().splitlines()[0] in unescape(page)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "stages=null: task=simulate builds no model that could tell; give stages= or ranks="),
        ({"num_ranks": 2, "cost": table(stages={"F": -1, "B": 1})}, "cost.stages.F=-1: must be a number >= 0"),
        ({"num_ranks": 2, "cost": table(stages={"F": 1e308, "B": 1})}, "cost.stages.F=1e+308: is too large"),
        ({"num_ranks": 2, "cost": table(stages={"F": 1e-320, "B": 1})}, "cost.stages.F=1e-320: is too small"),
        ({"num_ranks": 2, "cost": table(stages=[STAGE])}, "cost.stages[1]: is missing; 1 entries"),
        ({"num_ranks": 2, "cost": table(stages={"F": 1, "B": 2})}, "cost.stages[0].I: is missing; schedule 'zb_h1'"),
    ],
)
def test_what_cannot_be_predicted_is_said_in_the_users_spelling(tmp_path, values, text):
    with pytest.raises(ConfigError) as error:
        predicted(tmp_path, **values)

    assert text in str(error.value)


def test_from_the_command_line_it_needs_neither_a_model_nor_torch(tmp_path):
    watch = "import sys; sys.argv[0] = 'pipezoo'; from pipezoo.cli.main import command; code = command(sys.argv[1:])"
    end = "; assert 'torch' not in sys.modules; sys.exit(code)"
    words = ["simulate", "ranks=4", "schedule=zbv", "microbatches=16", f"hydra.run.dir={tmp_path}/run"]

    done = subprocess.run([sys.executable, "-c", watch + end, *words], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    assert read_result(tmp_path / "run")["bubble"]["predicted"]["makespan"] == pytest.approx(3 / (6 * 16 + 3))
    assert "gap 0.0 points" in done.stdout


def test_unit_cost_is_a_ranks_not_a_stages(tmp_path):
    result, _ = predicted(tmp_path, num_ranks=2, schedule=schedule("zbv"))

    assert result["prediction"]["cost"] == unit(4, 2).to_dict()
