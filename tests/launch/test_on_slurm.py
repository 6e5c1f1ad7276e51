"""On a real Slurm of two nodes: a sweep has a job for each run, and a script of sbatch runs once."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipezoo.results.run_dir import read_result
from tests.conftest import MARK
from tests.support.command_line import Ended
from tests.support.slurm import Slurm

SMALL = ("model=multi_mlp", "model.d_hid=16", "split=modules", "stages=2", "microbatches=2", "steps=2")


@pytest.fixture
def on_slurm(slurm: Slurm, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """A Slurm that commands of this test find. Its jobs end with the test."""
    environment.update(slurm.environment)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return slurm


def test_a_sweep_is_a_job_for_each_run(on_slurm: Slurm, cli: Callable[..., Ended], tmp_path: Path) -> None:
    launcher = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=main", "hydra.launcher.timeout_min=5")

    ended = cli("-m", *SMALL, "schedule=gpipe,1f1b", *launcher, "hydra.sweep.dir=sweep")

    assert ended.code == 0, ended.err
    rows = list(csv.DictReader((tmp_path / "sweep" / "sweep.csv").open()))
    assert [(row["schedule"], row["verified"]) for row in rows] == [("gpipe", "exact"), ("1f1b", "exact")]
    jobs = {path.name for path in (tmp_path / "sweep" / ".submitit").glob("[0-9]*_[0-9]*")}
    assert len(jobs) == 2  # of one array
    assert on_slurm.jobs() == []


def test_a_script_of_sbatch_without_srun_runs_once(on_slurm: Slurm, tmp_path: Path) -> None:
    words = " ".join([sys.executable, "-m", "pipezoo", *SMALL, "hydra.run.dir=run"])
    (tmp_path / "job.sh").write_text(f"#!/bin/bash\necho tasks $SLURM_NTASKS of job $SLURM_JOB_ID\n{words}\n")

    on_slurm.run(
        "sbatch",
        "--wait",
        "-n2",
        f"--chdir={tmp_path}",
        f"--output={tmp_path}/out",
        str(tmp_path / "job.sh"),
        timeout=90.0,
    )

    said = (tmp_path / "out").read_text()
    assert "tasks 2 of job " in said
    assert said.count("verified  exact") == 1
    result = read_result(tmp_path / "run")
    assert (result["launch"], result["num_ranks"], result["status"]) == ("processes", 2, "ok")


def test_a_test_leaves_its_mark_on_the_jobs_of_a_slurm(on_slurm: Slurm) -> None:
    assert on_slurm.run("srun", "-N2", "-n2", "printenv", MARK).split() == [os.environ[MARK]] * 2
