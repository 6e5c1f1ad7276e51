"""Whole commands, from what is typed to what is left behind."""

from __future__ import annotations

import csv
import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from benchmarks.matrix import run_cell
from pipezoo.results.timeline_file import load_timelines
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.zbv import zbv

MODELS = '''
import torch
from torch import nn

W = 8


class Layer(nn.Module):
    def __init__(self, learns=True):
        super().__init__()
        self.net = nn.Linear(W, W)
        self.requires_grad_(learns)

    def forward(self, x):
        return torch.tanh(self.net(x))


class Normed(Layer):
    """Has buffers that every forward changes."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(W)

    def forward(self, x):
        return self.norm(super().forward(x))


class Forgetful(Layer):
    """Has a parameter that its forward does not use."""

    def __init__(self):
        super().__init__()
        self.never = nn.Parameter(torch.ones(W))


class Transposed(Layer):
    """Returns a view that is not contiguous."""

    def forward(self, x):
        return super().forward(x).t().contiguous().t()


class Twofold(Layer):
    """Returns a tuple, of which one tensor needs no gradient."""

    def forward(self, x, mask=None):
        return super().forward(x), (x > 0).to(x.dtype).detach()


class Merging(Layer):
    def forward(self, x, mask):
        return super().forward(x * mask)


class Mixed(nn.Module):
    KINDS = {
        "plain": [Layer, Layer, Layer, Layer],
        "normed": [Normed, Layer, Normed, Layer],
        "frozen_first": [lambda: Layer(False), Layer, Layer, Layer],
        "frozen_middle": [Layer, lambda: Layer(False), lambda: Layer(False), Layer],
        "frozen_last": [Layer, Layer, Layer, lambda: Layer(False)],
        "forgetful": [Forgetful, Layer, Forgetful, Layer],
        "transposed": [Transposed, Transposed, Transposed, Layer],
        "twofold": [Twofold, Merging, Twofold, Merging],
    }

    def __init__(self, kind: str = "plain"):
        super().__init__()
        self.layers = nn.ModuleList(make() for make in self.KINDS[kind])

    def forward(self, x):
        for layer in self.layers:
            x = layer(*x) if isinstance(x, tuple) else layer(x)
        return x
'''
THEIR_SCHEDULE = '''
from pipezoo.schedule.schedule import Schedule


def backwards_last(num_ranks: int, num_microbatches: int, newest_first: bool = True) -> Schedule:
    """All forwards, then all backwards, the newest microbatch first if wanted."""
    forth = range(num_microbatches)
    back = reversed(forth) if newest_first else forth
    back = list(back)
    return Schedule.from_orders(
        [[*(f"{rank}F{m}" for m in forth), *(f"{rank}B{m}" for m in back)] for rank in range(num_ranks)]
    )
'''
KEYS = {  # of result.json, and what they are
    "status": str,
    "verified": str,
    "max_relative_difference": float,
    "losses": list,
    "step_seconds": dict,
    "samples_per_second": float,
    "bubble": dict,
    "num_stages": int,
    "num_ranks": int,
    "num_microbatches": int,
    "schedule": str,
    "model": str,
    "versions": dict,
    "config_hash": str,
}


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def check_folder(folder: Path, steps: int) -> dict[str, Any]:
    """What every run leaves behind; returns its result."""
    result = result_of(folder)
    for key, kind in KEYS.items():
        assert type(result[key]) is kind, key
    assert set(result["step_seconds"]) == {"median", "min", "max"}
    for kind in ("measured", "predicted"):
        assert all(0 <= result["bubble"][kind][over] < 1 for over in ("makespan", "span"))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(steps))
    assert [line["loss"] for line in lines] == result["losses"]
    assert all(math.isfinite(loss) for loss in result["losses"])
    assert json.loads((folder / "timeline.json").read_text())["traceEvents"]
    measured = load_timelines(folder)[-1]
    schedule = Schedule.from_csv(folder / "schedule.csv")
    assert (measured.source, measured.num_ranks, len(measured.start)) == (
        "measured",
        result["num_ranks"],
        schedule.num_actions,
    )
    assert (folder / "config.yaml").is_file()
    assert (folder / ".hydra" / "overrides.yaml").is_file()
    return result


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one model and one schedule of a user's own, one Python and one YAML file each."""
    (tmp_path / "their_models.py").write_text(MODELS)
    (tmp_path / "their_schedules.py").write_text(THEIR_SCHEDULE)
    for group, text in (
        ("model/mine", "_target_: their_models.Mixed\nkind: plain\n"),
        ("schedule/backwards_last", "_target_: their_schedules.backwards_last\n"),
    ):
        (tmp_path / "conf" / f"{group}.yaml").parent.mkdir(parents=True)
        (tmp_path / "conf" / f"{group}.yaml").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


# The commands of the first page -----------------------------------------------------------------------------------


def test_example_code_in_six_stages_runs_on_six_ranks_and_is_exact(cli, tmp_path):
    ended = cli("model=example_code", "model.splits=6", "model.d_hid=16", "steps=3", "hydra.run.dir=out")
    assert (ended.code, ended.err) == (0, "")
    result = check_folder(tmp_path / "out", steps=3)
    assert (result["verified"], result["num_stages"], result["num_ranks"]) == ("exact", 6, 6)
    assert "6 stages on 6 ranks, 8 microbatches of 4 rows" in ended.out
    assert "threads=1 each" in ended.out
    assert "rank 5 " in ended.out
    assert "\nverified  exact: " in ended.out
    assert not (tmp_path / "outputs").exists()


def test_a_language_model_learns_text_in_four_interleaved_stages(cli, tmp_path):
    words = ("model=gpt", "data=text", "stages=4", "schedule=interleaved_1f1b", "model.width=32", "model.context=32")
    ended = cli(*words, "steps=25", "optimizer.lr=3e-3")
    assert (ended.code, ended.err) == (0, "")
    [folder] = (tmp_path / "outputs").glob("*/*")
    result = check_folder(folder, steps=25)
    assert (result["verified"], result["num_ranks"]) == ("exact", 2)
    assert result["losses"][0] == pytest.approx(math.log(256), abs=0.1)  # at first every byte is as likely
    assert result["losses"][-1] < result["losses"][0] - 1.0


def test_a_sweep_over_sizes_stages_and_schedules_ends_in_one_table(cli, tmp_path):
    words = ("model=multi_mlp", "model.d_hid=8,16", "stages=4", "schedule=1f1b,zbv", "steps=2")
    ended = cli("-m", *words, "hydra.sweep.dir=sweep")
    assert (ended.code, ended.err) == (0, "")
    rows = list(csv.DictReader((tmp_path / "sweep" / "sweep.csv").open()))
    assert [(row["model.d_hid"], row["schedule"]) for row in rows] == [
        (width, schedule) for width in ("8", "16") for schedule in ("1f1b", "zbv")
    ]
    assert {row["verified"] for row in rows} == {"exact"}
    assert ended.out.count("samples/s") == 1
    for number in range(4):
        check_folder(tmp_path / "sweep" / str(number), steps=2)


# A user's own -----------------------------------------------------------------------------------------------------


def test_a_model_and_a_schedule_are_each_one_python_file_and_one_yaml_file(cli, theirs):
    words = ("--config-dir", "conf", "model=mine", "split=modules", "data.d_hid=8", "schedule=backwards_last")
    ended = cli(*words, "+schedule.newest_first=true", "ranks=4", "microbatches=3", "steps=2", "hydra.run.dir=out")
    assert (ended.code, ended.err) == (0, "")
    assert check_folder(theirs / "out", steps=2)["verified"] == "exact"
    assert (theirs / "out" / "schedule.csv").read_text() == "".join(
        f"{r}F0,{r}F1,{r}F2,{r}B2,{r}B1,{r}B0\n" for r in range(4)
    )


def test_a_file_of_the_users_own_is_a_schedule(tmp_path):
    (tmp_path / "mine.csv").write_text(zbv(2, 4).to_csv())
    words = ("model=multi_mlp", "model.d_hid=8", "schedule=csv", f"schedule.file={tmp_path / 'mine.csv'}", "steps=2")
    result = run_cell(words, tmp_path / "out")
    assert (result["verified"], result["num_stages"], result["num_ranks"]) == ("exact", 4, 2)
    assert Schedule.from_csv(tmp_path / "out" / "schedule.csv") == zbv(2, 4)


def test_a_text_of_the_users_own_is_learnt(tmp_path):
    (tmp_path / "song.txt").write_text("la " * 400)
    words = ("model=gpt", f"data.path={tmp_path / 'song.txt'}", "model.width=16", "model.context=16", "stages=2")
    result = run_cell((*words, "steps=20", "optimizer.lr=1e-2"), tmp_path / "out")
    assert result["verified"] == "exact"
    assert result["losses"][-1] < 3.0 < result["losses"][0]


ODD = ("normed", "frozen_first", "frozen_middle", "frozen_last", "forgetful", "transposed", "twofold")


@pytest.mark.parametrize(
    ("kind", "schedule"),  # backwards as a whole, and in two halves
    [
        *product(ODD, ["1f1b", "zbv"]),
        ("frozen_first", "interleaved_zero_bubble"),
        ("twofold", "interleaved_zero_bubble"),
    ],
)
def test_an_odd_model_is_exact(theirs: Path, tmp_path: Path, kind: str, schedule: str) -> None:
    words = ("model=mine", f"model.kind={kind}", "split=modules", "data.d_hid=8", "stages=4", f"schedule={schedule}")
    result = run_cell((*words, "optimizer=adamw", "steps=2", "microbatches=4"), tmp_path / "out", theirs / "conf")
    assert result.get("verified") == "exact", result
    assert result["max_relative_difference"] < 1e-6


# Odd but legal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "ranks=1",
        "stages=1 microbatches=1 batch_size=1",
        "stages=2 microbatches=1 schedule=gpipe",
        "ranks=1 schedule=zbv",
        "ranks=1 stages=4 schedule=looped_bfs",
        "ranks=2 microbatches=1 schedule=interleaved_1f1b batch_size=1",
        "ranks=2 microbatches=3 schedule=zbv",
        "stages=4 microbatches=2 schedule=gpipe",
        "stages=3 seed=7 batch_size=8 steps=1",
        "stages=2 dtype=float64 record_steps=5",
        "stages=4 schedule=zbv dtype=bfloat16",
        "stages=2 loss.reduction=sum optimizer=sgd optimizer.lr=1e-4",
        "stages=2 loss=l1 optimizer=sgd optimizer.momentum=0.9 optimizer.weight_decay=0.1",
        "stages=2 optimizer=adamw optimizer.betas=[0.8,0.9] launch.threads=1",
        "model=multi_mlp_kwargs stages=2",
        "model=gpt model.width=16 model.context=8 stages=2 dtype=bfloat16",
    ],
)
def test_an_odd_but_legal_run_is_exact(tmp_path: Path, line: str) -> None:
    model = [] if "model=" in line else ["model=multi_mlp"]
    small = [] if "gpt" in line else ["model.d_hid=8"]
    result = run_cell((*model, *small, "steps=2", *line.split()), tmp_path / "out")
    assert result.get("verified") == "exact", result


def test_tied_weights_in_bfloat16_are_close_within_its_own_tolerance(tmp_path: Path) -> None:
    words = ("model=gpt", "model.tied=true", "model.width=16", "model.context=8", "stages=2", "dtype=bfloat16")
    result = run_cell((*words, "steps=3"), tmp_path / "out")
    assert (result["verified"], result["tolerance"]) == ("close", 0.05)


def test_the_same_words_give_the_same_losses_and_another_seed_others(tmp_path: Path) -> None:
    words = ("model=multi_mlp", "model.d_hid=8", "stages=2", "steps=3", "verify=false")
    losses = [run_cell((*words, f"seed={seed}"), tmp_path / str(i))["losses"] for i, seed in enumerate((0, 0, 1))]
    assert losses[0] == losses[1] != losses[2]


def test_one_run_of_an_experiment_that_is_a_sweep_says_so(cli) -> None:
    ended = cli("task=simulate", "experiment=schedules")
    assert "note      experiment=schedules is a sweep, and this is one run of it: add -m for all of them" in ended.out
    assert "is a sweep" not in cli("task=simulate", "ranks=2").out
