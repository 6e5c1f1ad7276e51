from __future__ import annotations

import csv

import pytest

from pipezoo.config.compose import load
from pipezoo.errors import ConfigError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.report.html import run_page
from pipezoo.results.run import read_run
from pipezoo.results.run_dir import read_result
from pipezoo.schedule.schedule import Schedule
from pipezoo.tasks.plan import run
from tests.support.configs import compose

SMALL = ["plan=devices", "plan.devices=64", "plan.global_batch=128", "plan.tp=[4,8]", "plan.rows=[1]"]


def planned(folder, *words):
    said = []
    small = [] if any(word.startswith("plan=") for word in words) else SMALL
    result = run(load(*compose(["task=plan", *small, *words]), Allowlist()), folder, said.append)
    return result, "\n".join(said)


def test_the_folder_holds_the_table_and_the_order_of_the_winner(tmp_path):
    result, said = planned(tmp_path)
    assert read_result(tmp_path) == result
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    steps = [float(row["step_seconds"]) for row in rows]
    assert steps == sorted(steps)
    assert result["plans"][0]["step_seconds"] == steps[0]
    best = result["plans"][0]
    winner = Schedule.from_csv(tmp_path / "schedule.csv")
    assert (winner.num_ranks, winner.num_microbatches) == (best["pp"], best["num_microbatches"])
    assert result["step_seconds"]["median"] == pytest.approx(best["step_seconds"])
    parts = sum(best[f"memory_{name}"] for name in ("parameters", "gradients", "optimizer", "activations"))
    assert parts == pytest.approx(best["memory"])
    for words in ("70.6 B parameters", "TFLOP/s", "need more memory than there is", "the fullest", "messages between"):
        assert words in said
    order = best["order"].replace(" ", ",")
    sizes = f"ranks={best['pp']} mesh.dp={best['dp']} mesh.dp_with=fsdp mesh.tp={best['tp']} mesh.order=[{order}]"
    assert f"best      {sizes} schedule={best['schedule']} microbatches={best['num_microbatches']}" in said


def test_the_page_has_a_table_to_sort_and_the_winner(tmp_path):
    result, _ = planned(tmp_path)
    page = run_page(read_run(tmp_path))
    assert "order on the nodes" in page
    assert "states of the optimizer" in page
    best = result["plans"][0]
    assert f"ranks={best['pp']} mesh.dp={best['dp']} mesh.tp={best['tp']}" in page


def test_a_named_model_has_its_own_sizes(tmp_path):
    words = ("plan=llama3_405b", "plan.pp=[16]", "plan.tp=[8]", "plan.schedules=[1f1b]", "plan.top=1")
    _, said = planned(tmp_path, *words, "plan.rows=[1]")
    assert "16,384 devices on 2,048 nodes for 405.9 B parameters: 126 layers, hidden 16384, 128 heads" in said


def test_another_machine_gives_another_plan(tmp_path):
    for name in ("h100", "a100"):
        (tmp_path / name).mkdir()
    steps = [planned(tmp_path / name, f"topology={name}")[0]["plans"][0]["step_seconds"] for name in ("h100", "a100")]
    assert 1.5 < steps[1] / steps[0] < 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan.devices=8"], "plan.memory=null: fits nowhere; pp=1 dp=1 tp=8 needs least"),
        (["plan.pp=[4]", "plan.dp=[5]", "plan.tp=[8]"], "plan.devices=64: pp=4 x dp=5 x tp=8 is 160; valid: 160"),
        (["plan.transformer.heads=63"], "plan.transformer.heads=63: does not divide hidden=8192"),
        (
            ["plan.tp=[3]"],
            "plan.transformer.heads=64: 64 heads, 8 of keys and values, ffn 28672: not divisible",
        ),
        (["plan.global_batch=7", "plan.tp=[8]", "plan.pp=[1]"], "plan.global_batch=7: global_batch=7 is not divisible"),
        (["plan.pp=[32]", "plan.tp=[1]"], "plan.transformer.layers=80: 80 layers on 32 x 1 stages are not even"),
        (["topology.nodes=4"], "topology.nodes=4: 64 processes need more than 4 x 8 = 32 GPUs; valid: >= 8"),
        (["topology.device=null"], "topology.device=null: a plan needs flops, memory"),
        (["plan.schedules=[1f1]"], "plan.schedules=1f1: unknown word (did you mean 1f1b?)"),
    ],
)
def test_what_cannot_be_planned_is_one_line(words, message, tmp_path):
    with pytest.raises(ConfigError) as error:
        planned(tmp_path, *words)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
