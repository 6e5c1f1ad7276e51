"""A sweep: its jobs cannot hurt each other, each leaves a result, and the exit code is that of the worst."""

# ruff: noqa: E501  (a message stands on one line)
from __future__ import annotations

import csv
import json
import signal
import time
from pathlib import Path

import pytest

from pipezoo.cli.sweep import sweep_exit_code

NET = """
import os, signal, sys, time
import torch
from torch import nn


class Net(nn.Sequential):
    def __init__(self, kind: str = "fine"):
        if kind == "raises":
            raise RuntimeError("it cannot be built")
        if kind == "exits":
            sys.exit(0)
        if kind == "leaves":
            os._exit(0)
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "leaks":
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(False)
            os.environ["LEAKED"] = "yes"
            raise ValueError("kind=leaks: it changed the process")
        if kind == "sleeps":
            time.sleep(60)
        super().__init__(nn.Linear(4, 4), nn.Linear(4, 4))
        assert "LEAKED" not in os.environ
        assert self[0].weight.dtype == torch.float32
"""
ENDS = {
    "raises": (2, "failed", "model=mine: RuntimeError: it cannot be built (their_net.py:10; debug=true shows the traceback)"),
    "exits": (2, "failed", "something in this run called sys.exit(0) before its end"),
    "leaves": (1, "failed", "the run left with exit code 0 before its end"),
    "killed": (4, "failed", "the run was killed by SIGKILL"),
    "leaks": (2, "failed", "model.kind=leaks: it changed the process"),
    "fine": (0, "ok", None),  # behind all of them
}  # fmt: skip
WORDS = ("model=mine", "data.d_hid=4", "split=modules", "stages=1", "steps=2", "verify=false", "--config-dir", "theirs")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A user's model with bad habits."""
    (tmp_path / "their_net.py").write_text(NET)
    (tmp_path / "theirs" / "model").mkdir(parents=True)
    (tmp_path / "theirs" / "model" / "mine.yaml").write_text("_target_: their_net.Net\nkind: fine\n")
    return tmp_path


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_what_a_job_does_to_its_process_neither_stops_nor_hides_the_others(cli, theirs):
    ended = cli("-m", *WORDS, f"model.kind={','.join(ENDS)}", "hydra.sweep.dir=sweep")
    assert ended.code == 4
    assert "Traceback" not in ended.err
    for number, (kind, (code, status, error)) in enumerate(ENDS.items()):
        result = result_of(theirs / "sweep" / str(number))
        assert (result.get("exit_code", 0), result["status"], result.get("error")) == (code, status, error)
        assert f"[{number}] " in ended.out
        overrides = (theirs / "sweep" / str(number) / ".hydra" / "overrides.yaml").read_text()
        assert f"- model.kind={kind}\n" in overrides
    rows = list(csv.DictReader((theirs / "sweep" / "sweep.csv").open()))
    assert [(row["model.kind"], row["status"]) for row in rows] == [(kind, ENDS[kind][1]) for kind in ENDS]


def test_a_value_that_no_job_can_have_fails_that_job_alone(cli, tmp_path):
    ended = cli(
        "-m", "model=multi_mlp", "model.d_hid=8", "stages=1", "verify=false", "steps=1,none", "hydra.sweep.dir=sweep"
    )
    assert ended.code == 2
    assert result_of(tmp_path / "sweep" / "0")["status"] == "ok"
    assert result_of(tmp_path / "sweep" / "1")["error"] == "steps=none: must be an int; valid: >= 1"


def test_a_word_that_is_no_option_refuses_the_whole_sweep_before_it_starts(cli, tmp_path):
    ended = cli("-m", "schedule=gpipe,zbw", "hydra.sweep.dir=sweep")
    assert ended.code == 2
    assert ended.err.startswith("error: schedule=zbw: unknown schedule (did you mean zbv?)")
    assert len(ended.error_lines) == 1
    assert not (tmp_path / "sweep" / "0").exists()


def test_a_folder_with_runs_in_it_is_not_swept_over(cli, tmp_path):
    (tmp_path / "sweep" / "0").mkdir(parents=True)
    (tmp_path / "sweep" / "0" / "result.json").write_text('{"status": "ok"}')
    ended = cli("-m", "model=multi_mlp", "steps=1,2", "hydra.sweep.dir=sweep")
    assert ended.code == 6
    assert "already holds a run" in ended.err
    assert result_of(tmp_path / "sweep" / "0") == {"status": "ok"}


def test_a_job_cannot_leave_the_folder_of_its_sweep(cli, tmp_path):
    words = ("hydra.sweep.dir=a/b/sweep", "hydra.sweep.subdir=../../out/${seed}")
    ended = cli("-m", "model=multi_mlp", "seed=1,2", *words)
    assert ended.code == 2
    assert "error: hydra.sweep.subdir=../../out/1: leads out of the sweep's folder; valid: below it" in ended.err
    assert list(tmp_path.rglob("result.json")) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_sweep_stops_and_says_so(start, theirs, number, code):
    sweep = start("-m", *WORDS, "model.kind=sleeps,fine", "hydra.sweep.dir=sweep")
    wait_for(theirs / "sweep" / "0" / "output.txt")
    time.sleep(0.5)
    sweep.send_signal(number)
    assert sweep.wait(30).code == code
    assert result_of(theirs / "sweep" / "0")["status"] == "interrupted"
    assert not (theirs / "sweep" / "1").exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the kernel ends the children, on Linux alone")
def test_a_sweep_that_is_killed_takes_its_job_with_it(start, theirs):
    sweep = start("-m", *WORDS, "model.kind=sleeps", "hydra.sweep.dir=sweep")
    wait_for(theirs / "sweep" / "0" / "output.txt")
    sweep.send_signal(signal.SIGKILL)
    assert sweep.wait(10).code == -signal.SIGKILL  # which fails if something outlives it


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        ("hydra_joblib_launcher", ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")),
        ("hydra_submitit_launcher", ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=2")),
    ],
)
def test_other_launchers_run_the_jobs_too(cli, theirs, plugin, words):
    pytest.importorskip(f"hydra_plugins.{plugin}", reason=f"needs {plugin}")
    ended = cli("-m", *WORDS, "model.kind=fine,killed", *words, "hydra.sweep.dir=sweep")
    assert ended.code == 4
    assert [result_of(theirs / "sweep" / str(number))["status"] for number in range(2)] == ["ok", "failed"]
    assert (theirs / "sweep" / "sweep.csv").is_file()


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([], 0),
        (['{"status": "ok"}'], 0),
        (['{"status": "ok"}', '{"status": "failed", "exit_code": 3}', '{"status": "failed", "exit_code": 2}'], 3),
        (['{"status": "ok"}', '{"status": "running"}'], 1),
        (['{"status": "ok"}', '{"sta'], 1),
        (['{"status": "ok"}', None], 1),
        (['{"status": "interrupted", "exit_code": 143}'], 143),
    ],
)
def test_a_sweep_ends_with_the_worst_code_of_its_jobs(results, code, tmp_path):
    for number, text in enumerate(results):
        (tmp_path / str(number)).mkdir()
        if text is not None:
            (tmp_path / str(number) / "result.json").write_text(text)
    assert sweep_exit_code(tmp_path) == code
