"""On a real Slurm of two nodes: a run is a job, a sweep a job for each run, a script of sbatch runs once.

What runs on two nodes at once is in tests/test_laptop_to_cluster.py.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipezoo.results.run_dir import METRICS, read_result
from tests.conftest import MARK
from tests.support.command_line import Ended, Warm
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
    on_slurm.wait_until(lambda: not on_slurm.jobs(), 20.0)


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


def test_a_failed_run_has_its_own_exit_code_and_line(
    on_slurm: Slurm, cli: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = cli(*SMALL, "launch=slurm", "launch.time=5", "fault=raise", "fault.rank=1", "hydra.run.dir=run")

    assert ended.code == 4
    assert ended.error_lines == [
        "error: rank 1 (step 0, fetching the batch): RuntimeError: this error was asked for by fault=raise; more in "
        f"{tmp_path}/run/ranks.log"
    ]
    assert "slurm     job " in ended.out
    assert "1 node, 1 task on each" in ended.out
    result = read_result(tmp_path / "run")
    assert (result["launch"], result["exit_code"]) == ("slurm", 4)


def test_a_job_whose_run_never_began_says_what_slurm_says(on_slurm: Slurm, cli: Callable[..., Ended]) -> None:
    ended = cli(*SMALL, "launch=slurm", "launch.time=5", "launch.setup=['exit 7']", "hydra.run.dir=run")
    assert ended.code == 4
    (line,) = ended.error_lines
    assert line.startswith("error: job ")
    assert line.endswith(" ended as FAILED with exit code 7 before its run did")


@pytest.mark.timeout(180)
def test_srun_leaves_with_the_code_of_the_run(on_slurm: Slurm, environment: dict[str, str], tmp_path: Path) -> None:
    hangs = ("fault=hang", "fault.rank=1", "fault.step=1", "launch.step_timeout=1", "hydra.run.dir=run")
    command = ["srun", "-N2", "-n2", sys.executable, "-m", "pipezoo", *SMALL, *hangs]

    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=150)

    assert ended.returncode == 124, ended.stderr  # not the 143 of a task that was stopped
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: nobody moved for launch.step_timeout=1 s: rank 1 on n2 does not move")
    on_slurm.wait_until(lambda: not on_slurm.jobs(), 20.0)


@pytest.mark.timeout(240)
def test_a_job_that_is_requeued_goes_on_in_its_folder(
    on_slurm: Slurm, start: Callable[..., Warm], tmp_path: Path
) -> None:
    job = ("launch=slurm", "launch.nodes=2", "launch.time=5", "launch.requeue=true", "hydra.run.dir=run")
    hangs = ("fault=hang", "fault.seconds=120", "fault.step=2")  # in the first attempt
    command = start(*SMALL, "steps=3", "checkpoint.every=1", *job, *hangs)
    metrics = tmp_path / "run" / METRICS
    on_slurm.wait_until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) == 2, 120.0)

    (number,) = on_slurm.jobs()
    on_slurm.run("scontrol", "requeue", number)
    on_slurm.wait_until(lambda: on_slurm.job(number)["Reason"] == "BeginTime")
    on_slurm.wait_until(lambda: on_slurm.run("sinfo", "-h", "-o", "%t %D").split() == ["idle", "2"])
    time.sleep(1.0)  # a node may still be clearing away the first attempt, and then ends the second one at once
    on_slurm.run("scontrol", "update", f"JobId={number}", "StartTime=now")  # else it waits for two minutes
    ended = command.wait(120.0)

    assert ended.code == 0, ended.err
    result = read_result(tmp_path / "run")
    assert [(one["exit_code"], one["from_step"]) for one in result["attempts"]] == [(143, 0), (0, 2)]
    assert (len(result["losses"]), result["verified"]) == (3, "exact")


LATER = ("launch=slurm", "launch.time=5", "launch.options=['--begin=now+1hour']", "hydra.run.dir=run")


def test_ctrl_c_takes_the_job_with_it(on_slurm: Slurm, start: Callable[..., Warm]) -> None:
    command = start(*SMALL, *LATER)
    on_slurm.wait_until(on_slurm.jobs)
    command.send_signal(signal.SIGINT)
    ended = command.wait()
    assert ended.code == 130
    assert ended.error_lines == ["interrupted"]
    assert " is cancelled" in ended.out
    on_slurm.wait_until(lambda: not on_slurm.jobs(), 20.0)


def test_who_does_not_wait_leaves_the_job_behind(on_slurm: Slurm, cli: Callable[..., Ended]) -> None:
    ended = cli(*SMALL, *LATER, "launch.wait=false")
    (job,) = on_slurm.jobs()
    on_slurm.end_all_jobs()
    assert (ended.code, ended.err) == (0, "")
    assert f"scancel {job} ends it" in ended.out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("launch.partition=mian",), "launch.partition=mian: unknown partition (did you mean main?); valid: main"),
        (("launch.nodes=3", "stages=3"), "launch.nodes=3: partition main has 2; valid: 1..2"),
        (("launch.time=60",), "launch.time=60: partition main ends a job after 10 minutes; valid: 1..10"),
        (("launch.nodes=2", "stages=3"), "launch.nodes=2: does not divide the 3 processes; valid: 1, 3"),
        (("launch.options=['--constraint=gpu']",), "launch=slurm: sbatch says: Invalid feature specification"),
        (
            ("launch.requeue=true",),
            "launch.requeue=true: nothing would be there to go on from; valid: checkpoint.every",
        ),
        (("steps=0",), "steps=0: must be an int"),
        (("-m", "steps=1,2"), "launch=slurm: is one run; valid: -m with hydra/launcher=submitit_slurm"),
        (
            ("-m", "launch=processes", "hydra/launcher=submitit_slurm", "hydra.launcher.tasks_per_node=2"),
            "hydra.launcher.tasks_per_node=2: a run of a sweep is one process, which forks its ranks",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_submitted(
    on_slurm: Slurm, cli: Callable[..., Ended], tmp_path: Path, words: tuple[str, ...], line: str
) -> None:
    limit = () if {"launch.time=60", "launch=processes"} & {*words} else ("launch.time=5",)
    ended = cli(*SMALL, "launch=slurm", *limit, *words)
    assert ended.code == 2
    (error,) = ended.error_lines
    assert error.startswith(f"error: {line}")
    assert on_slurm.jobs() == []
    assert not (tmp_path / "outputs").exists() or not list((tmp_path / "outputs").glob("*/*"))


def test_a_folder_that_holds_a_run_is_refused_before_anything_is_submitted(
    on_slurm: Slurm, cli: Callable[..., Ended], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text('{"status": "ok"}')
    ended = cli(*SMALL, "launch=slurm", "launch.time=5", "hydra.run.dir=run")
    assert ended.code == 6
    assert "already holds a run" in ended.err
    assert on_slurm.jobs() == []


def test_a_test_leaves_its_mark_on_the_jobs_of_a_slurm(on_slurm: Slurm) -> None:
    assert on_slurm.run("srun", "-N2", "-n2", "printenv", MARK).split() == [os.environ[MARK]] * 2
