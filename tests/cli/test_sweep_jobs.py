"""One job of a sweep never costs another: jobs that are equal, that do not apply, that fail."""

# ruff: noqa: E501  (a list stands on one line)
from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipezoo.cli.main import respell
from tests.support.command import Command

SIMULATE = ("task=simulate", "microbatches=4", "hydra.sweep.dir=s")


def sweep(folder: Path, *words: str) -> Command:
    return Command(folder, ("-m", *words)).start().wait()


def statuses(folder: Path) -> list[str]:
    with (folder / "s" / "sweep.csv").open() as file:
        return [row["status"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("words", [("ranks=2,2,2",), ("ranks=2", "schedule=gpipe,1f1b,gpipe")])  # fmt: skip
def test_a_job_may_come_twice(tmp_path, words):
    ended = sweep(tmp_path, *SIMULATE, *words)
    assert ended.code == 0, ended.err
    assert set(statuses(tmp_path)) == {"ok"}


def test_what_a_glob_finds_and_does_not_fit_is_said_and_is_no_failure(tmp_path):
    ended = sweep(tmp_path, *SIMULATE, "schedule=glob([csv,early*,gpipe])", "ranks=4")
    assert ended.code == 0, ended.err
    assert "schedule=csv ranks=4  does not apply (schedule.file: is missing; give it a value)" in ended.out
    assert "does not apply (ranks=4: schedule.file=" in ended.out
    assert {"ok", "does not apply"} == set(statuses(tmp_path))
    assert "jobs ok" in (tmp_path / "s" / "report.html").read_text()


def test_a_job_that_was_asked_for_by_name_and_does_not_fit_is_a_failure(tmp_path):
    assert sweep(tmp_path, *SIMULATE, "schedule=gpipe,early_receives", "ranks=4").code == 2


def test_a_glob_of_which_nothing_fits_is_a_failure(tmp_path):
    assert sweep(tmp_path, *SIMULATE, "schedule=glob(early*)", "ranks=4").code == 2


def test_the_reason_of_a_failure_is_told_at_its_first_occurrence(tmp_path):
    ended = sweep(tmp_path, *SIMULATE, "ranks=2,4", "schedule.file=x", "schedule=csv")
    assert ended.code == 2
    lines = [line for line in ended.out.splitlines() if "failed with exit code 2" in line]
    assert len(lines) == 2
    assert "(schedule.file=x: " in lines[0]
    assert "(" not in lines[1].partition("exit code 2")[2]


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        ("schedule=ZBVZeroBubble", "schedule=zbv"),
        ("schedule=zbvzerobubble", "schedule=zbv"),
        ("schedule=Interleaved1F1B", "schedule=interleaved_1f1b"),
        ("schedule=ScheduleInterleaved1F1B", "schedule=interleaved_1f1b"),
        ("schedule=InterleavedZeroBubble", "schedule=interleaved_zero_bubble"),
        ("schedule=GPipe,1F1B,LoopedBFS,DualPipeV", "schedule=gpipe,1f1b,looped_bfs,dualpipev"),
        ("schedule=mine", "schedule=mine"),
        ("schedule=glob(*)", "schedule=glob(*)"),
        ("schedule.file=GPipe", "schedule.file=GPipe"),
    ],
)
def test_torchs_names_of_schedules_are_found(typed, ours):
    assert respell([typed]) == [ours]


def test_every_schedule_of_torchs_has_a_name_here():
    from torch.distributed.pipelining import schedules

    from pipezoo.config.overrides import OF_TORCH
    from pipezoo.experiment.registry import conf_dir

    assert {(conf_dir() / "schedule" / f"{name}.yaml").is_file() for name in OF_TORCH.values()} == {True}
    for name in OF_TORCH:
        assert schedules.get_schedule_class(name).__name__.lower() == f"schedule{name}"


@pytest.mark.parametrize(("direction", "worst"), [("minimize", "inf"), ("maximize", "-inf")])
def test_a_search_is_told_the_worst_of_a_run_that_failed(direction, worst, tmp_path, monkeypatch, capsys):
    from omegaconf import OmegaConf

    from pipezoo.cli import hydra_app

    node = OmegaConf.create({"sweeper": {"_target_": "plugins.OptunaSweeper", "direction": direction}})
    monkeypatch.setattr(hydra_app.HydraConfig, "get", staticmethod(lambda: node))
    assert hydra_app._for_the_sweeper(float("nan"), "[3]") == float(worst)
    assert capsys.readouterr().out == f"[3]  counts as {worst} for the sweeper\n"
    assert hydra_app._for_the_sweeper(0.5, "[3]") == 0.5


def test_an_objective_that_no_result_has_is_refused(tmp_path):
    ended = Command(tmp_path, ("simulate", "ranks=2", "objective=step_second.median")).start().wait()
    assert ended.code == 2
    assert ended.err.startswith(
        "error: objective=step_second.median: unknown key of result.json (did you mean step_seconds?); valid: attempts, "
    )


OPTUNA = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=1", "hydra.sweeper.sampler.seed=1")


@pytest.mark.skipif(find_spec("optuna") is None, reason="needs hydra-optuna-sweeper")
def test_a_search_goes_on_after_a_trial_that_diverges_and_draws_a_point_again(tmp_path):
    words = ("model=multi_mlp", "model.d_hid=16", "split=modules", "optimizer=sgd", "optimizer.lr=choice(0.1,1e30)")
    ended = sweep(
        tmp_path,
        *OPTUNA,
        *words,
        "steps=3",
        "launch=virtual",
        "verify=false",
        "objective=losses.-1",
        "hydra.sweep.dir=s",
    )
    assert ended.code == 5
    assert "FutureWarning" not in ended.err
    with (tmp_path / "s" / "sweep.csv").open() as file:
        rows = [(float(row["optimizer.lr"]), row["status"]) for row in csv.DictReader(file)]
    assert len(rows) == 5
    assert set(rows) == {(0.1, "ok"), (1e30, "failed")}
    assert "best_params:\n  optimizer.lr: 0.1\n" in (tmp_path / "s" / "optimization_results.yaml").read_text()
