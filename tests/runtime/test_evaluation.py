"""Held-out batches in the middle of a training: forwards alone, in evaluation mode, with one device's bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.data.batch import Batch
from pipezoo.executors import native
from pipezoo.experiment.evaluation import EvalOptions, History
from pipezoo.experiment.experiment import CheckpointOptions
from pipezoo.experiment.python_component import PythonComponent
from pipezoo.launch import Processes
from pipezoo.launch.this_process import ThisProcess
from pipezoo.runtime import evaluation
from tests.support.experiments import WIDTH, ending, experiment, run


class Modes(nn.Sequential):
    """Layers that compute something else in evaluation."""

    def __init__(self, drop: float = 0.0) -> None:
        blocks = (
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Dropout(drop), nn.Tanh()) for _ in range(4)
        )
        super().__init__(*blocks)


class Pair(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))


def rising(batch_size: int, seed: int, turn: int = 4) -> Callable[[int], Batch]:
    """Held-out losses fall, and rise from some step on: what is learned in training is wrong there."""

    def batch(step: int) -> Batch:
        x = torch.ones(batch_size, WIDTH)
        return Batch((x,), {}, x * (3 if step < 1000 else 1))

    return batch


def asked(every: int | None = 1, model: Any = Modes, **changes: Any) -> Any:
    words = {"num_microbatches": 4, "batch_size": 16, "steps": 4, "num_stages": 4}
    options = {name: changes.pop(name) for name in ("batches", "best", "patience", "data_of") if name in changes}
    if "data_of" in options:
        options["data"] = options.pop("data_of")
    return experiment(model, eval=EvalOptions(every=every, **options), **{**words, **changes})


def losses(result: dict[str, Any]) -> list[float]:
    return [told["loss"] for told in result["evaluations"]]


HOW = {
    "1f1b": {"num_stages": 2},
    "zbv": {"schedule": "pipezoo.schedules.zbv.zbv"},
    "by hand": {
        "schedule": ("pipezoo.schedules.from_csv.from_csv", {"file": "conf/schedule/v_shape.csv"}),
        "num_microbatches": 2,
    },
    "two processes": {"launch": Processes(), "launch_name": "processes", "num_stages": 2},
    "four processes": {"launch": Processes(), "launch_name": "processes"},
    "over gloo": {
        "launch": Processes(),
        "launch_name": "processes",
        "num_stages": 2,
        "executor": ("pipezoo.executors.native.native", {"transport": "distributed"}),
    },
    "torch's runtime": {
        "launch": Processes(),
        "launch_name": "processes",
        "num_stages": 2,
        "executor": "pipezoo.executors.torch_pipelining.TorchPipelining",
    },
}


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """Runs without an evaluation, by their number of microbatches: in every order they are one device's."""
    folder = tmp_path_factory.mktemp("without")
    return {count: run(asked(every=None, num_microbatches=count), folder / str(count)) for count in (2, 4)}


@pytest.mark.parametrize("how", HOW)
def test_the_loss_is_one_devices_in_every_order_and_changes_nothing(how, tmp_path, without):
    with_it = run(asked(every=2, **HOW[how]), tmp_path)
    without = without[HOW[how].get("num_microbatches", 4)]
    assert with_it["verified"] == without["verified"] == "exact"
    assert with_it["num_compared"] == without["num_compared"] + 2  # the losses of both evaluations
    assert with_it["losses"] == without["losses"]
    assert [told["steps"] for told in with_it["evaluations"]] == [2, 4]


def test_dropout_and_norms_are_in_evaluation_mode(tmp_path):
    result = run(asked(model=(Modes, {"drop": 0.5}), steps=2, batches=1), tmp_path)
    again = run(asked(model=(Modes, {"drop": 0.5}), steps=2, batches=1), tmp_path / "again")
    assert result["verified"] == "exact"
    assert losses(result) == losses(again)


def test_an_evaluation_in_training_mode_is_caught(tmp_path, monkeypatch):
    """As if the pipeline forgot model.eval(), and one device did not."""
    real, calls = evaluation.evaluate, []

    def evaluate(told: Any, modules: Any, *rest: Any) -> list[float]:
        calls.append(1)
        return real(told, [], *rest)

    monkeypatch.setattr("pipezoo.runtime.rank.evaluate", evaluate)
    code, line = ending(asked(launch=ThisProcess(), launch_name="here", num_stages=2), tmp_path)
    assert (code, bool(calls)) == (3, True)
    assert "eval_loss" in line


def test_nothing_is_kept_after_an_evaluation(tmp_path, monkeypatch):
    executors = []
    real = native.ForwardRank.step

    def step(self: Any, *words: Any) -> Any:
        executors.append(self)
        return real(self, *words)

    monkeypatch.setattr(native.ForwardRank, "step", step)
    run(asked(launch=ThisProcess(), launch_name="here", num_stages=2, steps=1), tmp_path)
    slots = [slot for executor in executors for slot in executor._slots.values()]
    kept = [value for slot in slots for held in (slot.inputs, slot.leaves, slot.ends, slot.outputs) for value in held]
    assert kept
    assert set(kept) == {None}


def test_held_out_batches_are_none_of_the_training(tmp_path):
    seen: list[int] = []

    class Watched:
        def __call__(self, step: int) -> Batch:
            seen.append(step)
            return rising(16, 0)(step)

    made = asked(launch=ThisProcess(), launch_name="here", verify=False, batches=2, steps=2, num_stages=2)
    watched = Watched()
    run(replace(made, data=PythonComponent("data", "watched", made=lambda batch_size, seed: watched)), tmp_path)
    assert {step for step in seen if step < 2**31} == {0, 1}
    assert {step for step in seen if step >= 2**31} == {2**31, 2**31 + 1}


def test_a_training_ends_where_nothing_gets_better(tmp_path):
    words = {"data": rising, "optimizer": ("torch.optim.SGD", {"lr": 0.3}), "num_stages": 2, "model": Pair}
    result = run(asked(patience=2, steps=40, batches=1, **words), tmp_path)
    best = result["best"]
    assert result["verified"] == "exact"
    assert len(result["losses"]) == result["steps"] == best["steps"] + 2 < 40
    assert best["loss"] == min(losses(result))


def kept(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))


def test_the_best_checkpoint_is_kept_beside_the_last(tmp_path):
    words = {"data": rising, "optimizer": ("torch.optim.SGD", {"lr": 0.3}), "num_stages": 2, "model": Pair}
    keep = CheckpointOptions(every=1, keep=1)
    result = run(asked(patience=3, steps=40, batches=1, best=True, checkpoint=keep, **words), tmp_path)
    assert kept(tmp_path) == [result["best"]["steps"], result["steps"]]
    manifest = json.loads((tmp_path / f"checkpoints/step-{result['steps']:08d}/manifest.json").read_text())
    assert [loss for _, loss in manifest["evaluations"]] == losses(result)


def test_a_resumed_run_waits_as_long_as_one_that_was_never_interrupted(tmp_path):
    words = {"data": rising, "optimizer": ("torch.optim.SGD", {"lr": 0.3}), "num_stages": 2, "model": Pair}
    more = {"patience": 3, "batches": 1, "checkpoint": CheckpointOptions(every=1), **words}
    whole = run(asked(steps=40, **more), tmp_path / "whole")
    part = whole["steps"] - 1
    run(asked(steps=part, **more), tmp_path / "part")
    rest = run(asked(steps=40, resume=str(tmp_path / "part"), **more), tmp_path / "rest")
    assert (rest["steps"], rest["best"]) == (whole["steps"], whole["best"])
    assert rest["losses"] == whole["losses"][part:]


def test_a_loss_that_is_no_number_is_never_the_best():
    history = History(EvalOptions(every=1, patience=2))
    assert [history.hear(steps, loss) for steps, loss in enumerate([2.0, float("nan"), 1.0], 1)] == [True, False, True]
    assert history.best == (1.0, 3)
    history.hear(4, 1.0)
    assert not history.ends
    history.hear(5, float("nan"))
    assert history.ends


ROWS = ("pipezoo.data.dataset.batches", {"source": {"_target_": "tests.data.sources.Rows"}})


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"data": ROWS}, "eval.data=null: data=batches has rows, and all of them are trained on; valid: "),
        ({"data": ROWS, "data_of": {"sorce": 1}}, "eval.data: data.sorce=1: unknown key (did you mean source?)"),
        (
            {"data": ROWS, "data_of": {"shuffle": False}, "batches": 9},
            "eval.batches=9: there are 3 held-out batches; valid: 1..3",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused(words, why, tmp_path):
    code, line = ending(asked(**words), tmp_path)
    assert (code, line[: len(why)]) == (2, why)


def test_held_out_rows_may_come_from_elsewhere(tmp_path):
    other = {"source": {"_target_": "tests.data.sources.Rows", "rows": 32}}
    result = run(asked(data=ROWS, data_of=other, steps=2), tmp_path)
    assert result["verified"] == "exact"
    assert len(result["evaluations"]) == 2


def test_a_patience_without_an_evaluation_is_refused(cli):
    ended = cli("model=multi_mlp", "stages=2", "eval.patience=3")
    assert ended.code == 2
    assert ended.error_lines == ["error: eval.patience=3: nothing is evaluated; valid: eval.every=100 as well"]
