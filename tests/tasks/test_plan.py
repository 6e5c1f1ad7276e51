"""``task=plan`` through the command line's door, up to a run of what it proposes."""

from __future__ import annotations

import csv
import subprocess
import sys

import pytest
import yaml

from pipezoo.config.compose import load
from pipezoo.errors import ConfigError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.results.run_dir import read_result
from pipezoo.schedule.schedule import Schedule
from pipezoo.tasks.plan import run
from tests.support.configs import compose

WORDS = ["task=plan", "ranks=4", "plan.time_limit_s=1", "plan.iterations=5"]
REAL = ["microbatches=12", "cost.F=29.7", "cost.I=29.4", "cost.W=19.9", "cost.p2p=0.5", "cost.freed_by_input_grad=0.57"]


def experiment_of(*words):
    return load(*compose([*WORDS, *words]), Allowlist())


def test_the_folder_holds_the_table_the_winner_and_a_run_of_it(tmp_path):
    said = []

    result = run(experiment_of("plan.memory=4", *REAL), tmp_path, said.append)

    assert read_result(tmp_path) == result
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    steps = [float(row["step_seconds"]) for row in rows]
    assert steps == sorted(steps)
    assert steps[0] == result["step_seconds"]["median"]
    winner = Schedule.from_csv(tmp_path / "schedule.csv")
    assert winner.num_ranks == 4
    experiment = yaml.safe_load((tmp_path / "conf" / "experiment" / "planned.yaml").read_text())
    assert experiment["schedule"]["file"] == str(tmp_path / "schedule.csv")
    assert (experiment["stages"], experiment["ranks"]) == (winner.num_stages, 4)
    text = "\n".join(said)
    assert "run it" in text
    assert "1f1b" in text
    assert "the best fixed schedule" in text


def test_the_experiment_composes_into_the_run_of_the_winner(tmp_path):
    run(experiment_of("model=multi_mlp", "model.d_hid=16"), tmp_path, lambda line: None)

    experiment = load(*compose(["experiment=planned"], tmp_path / "conf"), Allowlist())

    assert experiment.task == "train"
    assert experiment.model_name == "multi_mlp"
    assert experiment.model.arguments["d_hid"] == 16
    assert experiment.schedule() == Schedule.from_csv(tmp_path / "schedule.csv")
    assert experiment.num_ranks == 4


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("stages: {F: 1, I: -1, W: 1}", "stages.I=-1: must be a number >= 0"),
        (
            "stages: {F: 1, I: 1, V: 1}",
            "stages.V=1: no such key; valid: F, B, I, W, activation_bytes, freed_by_input_grad, "
            "output_bytes, optimizer",
        ),
        ("stages: [{F: 1, B: 2}]", "stages[1]: is missing; 1 entries, but the pipeline has 4 stages"),
        ("stages: [", "while parsing"),
        ("- 1", "cost=[1]: must be a table of keys; valid: stages, p2p"),
    ],
)
def test_a_wrong_cost_file_is_one_line(text, why, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        run(experiment_of("cost=file", f"cost.file={tmp_path}/mine.yaml", "plan.stages_per_rank=[1]"), tmp_path, str)
    assert str(error.value).startswith(f"cost.file={tmp_path}/mine.yaml: {why}")
    assert "\n" not in str(error.value)


def test_no_torch_is_needed():
    code = "import sys, pipezoo.tasks.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["plan.time_limit_s=0"], "plan.time_limit_s=0: must be a number > 0, of seconds"),
        (["plan.time_limit_s=-1"], "plan.time_limit_s=-1: must be a number > 0, of seconds"),
        (["plan.memory=abc"], "plan.memory=abc: must be a number > 0, or text like 2GB, 512MiB; null: no limit"),
        (
            ["plan.memory=2GB", "cost=table", "cost.stages.activation_bytes=2.1e9"],
            "plan.memory=2GB: stage 0 alone needs 2.1 GB of 2 GB for one microbatch",
        ),
        (["plan.microbatches=[8,16]", "batch_size=64"], "batch_size=64: 8 and 16 microbatches of it differ in rows"),
        (["plan.memory=0.2"], "plan.memory=0.2: stage 0 alone needs 0.5 of 0.2 for one microbatch"),
        (["ranks=null"], "ranks=null: task=plan plans for a number of ranks; give ranks="),
        (["cost=file", "cost.file=/there/is/none.yaml"], "cost.file=/there/is/none.yaml: No such file"),
        (["plan.stages_per_rank=[0]"], "plan.stages_per_rank=0: must be an int >= 1"),
        (["plan.objectives=span"], "plan.objectives: unknown key (did you mean objective?)"),
    ],
)
def test_bad_input_is_one_line(words, text, tmp_path):
    with pytest.raises(ConfigError) as error:
        run(experiment_of(*words), tmp_path, lambda line: None)
    assert text in str(error.value).replace("plan.objectives=span", "plan.objectives")
