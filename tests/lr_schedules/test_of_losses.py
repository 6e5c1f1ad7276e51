"""Schedules that move by the loss of evaluations: exact in every order, resumed, broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pipezoo.experiment.evaluation import EvalOptions
from pipezoo.experiment.experiment import CheckpointOptions
from pipezoo.experiment.python_component import PythonComponent
from pipezoo.launch.this_process import ThisProcess
from pipezoo.runtime.optimizing import Optimized
from pipezoo.runtime.update import Update
from tests.support.experiments import HOW, WIDTH, ending, experiment, run

PLATEAU = {"patience": 0, "threshold": 1.0, "factor": 0.5}  # nothing is ever better: the rate is halved each time


class Chain(torch.nn.Sequential):
    def __init__(self) -> None:
        super().__init__(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(4)))


class Follows(LRScheduler):
    """One of a user's own: the rate is a hundredth of the last loss."""

    def step(self, loss: float | None) -> None:  # type: ignore[override]
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr"] if loss is None else loss / 100
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _initial_step(self) -> None:
        self.step(None)


def asked(moved_by: Any = (ReduceLROnPlateau, PLATEAU), every: int | None = 2, **changes: Any) -> Any:
    made, options = moved_by
    part = PythonComponent("lr_schedule", made.__name__, made=lambda optimizer: made(optimizer, **options))
    words = {"num_microbatches": 4, "batch_size": 16, "steps": 6, "num_stages": 4}
    return experiment(Chain, lr_schedule=part, eval=EvalOptions(every=every), **{**words, **changes})


def rates(folder: Path) -> list[float]:
    return [json.loads(line)["lr"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("how", HOW)
def test_it_is_exact_in_every_order(how: str, tmp_path: Path) -> None:
    assert ending(asked(**HOW[how]), tmp_path) == (0, "exact")
    assert rates(tmp_path) == [0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025]


def test_a_schedule_of_ones_own_is_told_the_loss(tmp_path: Path) -> None:
    result = run(asked((Follows, {})), tmp_path)
    assert result["verified"] == "exact"
    first, second, _ = (told["loss"] / 100 for told in result["evaluations"])
    assert rates(tmp_path) == [0.01, 0.01, first, first, second, second]


def test_a_resumed_run_is_the_one_that_was_not_interrupted(tmp_path: Path) -> None:
    every = CheckpointOptions(every=2, keep=None)
    whole = run(asked(steps=10, checkpoint=every), tmp_path / "whole")
    begun = tmp_path / "whole" / "checkpoints" / "step-00000006"
    again = run(asked(steps=10, resume=str(begun), num_stages=2), tmp_path / "again")
    assert again["verified"] == "exact"
    assert rates(tmp_path / "again") == rates(tmp_path / "whole")[6:] == [0.00125, 0.00125, 0.000625, 0.000625]
    assert again["losses"] == whole["losses"][6:]


def test_a_rank_that_does_not_listen_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Update, "hear", lambda self, loss: None)
    code, line = ending(asked(launch=ThisProcess(), launch_name="here"), tmp_path)
    assert (code, "lr of step 2" in line) == (3, True), line


def test_without_evaluations_it_is_refused(tmp_path: Path) -> None:
    assert ending(asked(every=None), tmp_path) == (
        2,
        "lr_schedule=ReduceLROnPlateau: ReduceLROnPlateau moves by losses of evaluations, and there are none; "
        "valid: eval.every=100 as well",
    )


def test_what_moves_by_updates_hears_nothing() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    Optimized(optimizer, {}, {}, schedule, {}).hear(2.0)
    assert schedule.last_epoch == 0
