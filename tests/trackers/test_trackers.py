"""Who is told of a training: in a process of their own, whose failures are theirs alone."""

from __future__ import annotations

import json
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pipezoo.errors import ConfigError
from pipezoo.tasks.tracking import LOG, check_trackers, tracking
from tests.support.experiments import component, experiment, run
from tests.trackers import own

VALUES = [{"loss": 3.0, "eval_loss": 4.0}, {"loss": 2.5}, {"loss": 2.0}]
CONFIG = {"model": "gpt", "seed": 0}
RESULT = {"status": "ok", "verified": "exact"}


def told(folder: Path, *targets: Any) -> list[str]:
    """What is said of trackers that hear of three steps and an end."""
    lines: list[str] = []
    with tracking([component("tracker", target) for target in targets], folder, CONFIG, lines.append) as link:
        assert link is not None
        for step, values in enumerate(VALUES):
            link.step(step, values)
        link.end(RESULT)
    return lines


def library(name: str) -> Any:
    missing = find_spec(name) is None
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"{name} is not installed"))


def test_every_step_and_the_end_are_told(tmp_path):
    assert told(tmp_path, own.Notes) == []
    assert (tmp_path / "notes.txt").read_text() == "gpt\n0 3.0\n1 2.5\n2 2.0\nok\n"


def test_one_that_fails_is_said_and_the_others_go_on(tmp_path):
    assert told(tmp_path, own.Failing, own.Notes) == ["Failing failed: RuntimeError: no"]
    assert (tmp_path / "notes.txt").read_text().endswith("2 2.0\nok\n")
    assert "RuntimeError" in (tmp_path / LOG).read_text()


def test_one_that_is_slow_keeps_nobody_waiting(tmp_path):
    with tracking([component("tracker", own.Slow)], tmp_path, CONFIG, print) as link:
        began = time.monotonic()
        for step in range(2000):
            link.step(step, {"loss": 1.0, "text" * 50: 2.0})
        assert time.monotonic() - began < 5
        process = link._process
    assert not process.is_alive()


def test_beside_threads_the_process_is_spawned(tmp_path):
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert told(tmp_path, own.Notes) == []
    finally:
        stop.set()
        thread.join()
    assert (tmp_path / "notes.txt").read_text().endswith("ok\n")


def test_a_run_tells_its_trackers(tmp_path):
    from tests.data.test_runs_on_data import Chain

    result = run(experiment(Chain, trackers=(component("tracker", own.Notes),), steps=3, batch_size=8), tmp_path)
    lines = (tmp_path / "notes.txt").read_text().splitlines()
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == ["Chain", *(f"{told['step']} {told['loss']}" for told in metrics), "ok"]
    assert [told["loss"] for told in metrics] == result["losses"]


def test_a_library_that_is_not_installed_is_one_line():
    with pytest.raises(ConfigError, match=r"tracker=nowhere: needs the package package_that_nobody_has: pip install '"):
        check_trackers([component("tracker", own.nowhere)])


def test_files_alone_start_no_process(tmp_path):
    with tracking([component("tracker", "pipezoo.trackers.files.files")], tmp_path, CONFIG, print) as link:
        assert link is None


@pytest.mark.parametrize("name", [library("tensorboard")])
def test_tensorboard_has_the_scalars(name, tmp_path):
    assert told(tmp_path, f"pipezoo.trackers.{name}.{name}") == []
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(0, 3.0), (1, 2.5), (2, 2.0)]
    assert [(event.step, event.value) for event in events.Scalars("eval_loss")] == [(0, 4.0)]


@pytest.mark.parametrize("name", [library("mlflow")])
def test_mlflow_has_the_metrics(name, tmp_path):
    assert told(tmp_path, f"pipezoo.trackers.{name}.{name}") == []
    (file,) = (tmp_path / "mlruns").glob("*/*/metrics/loss")
    assert [line.split()[1:] for line in file.read_text().splitlines()] == [["3.0", "0"], ["2.5", "1"], ["2.0", "2"]]


@pytest.mark.parametrize("name", [library("wandb")])
def test_wandb_writes_its_run_without_a_network(name, tmp_path):
    assert told(tmp_path, f"pipezoo.trackers.{name}.{name}") == []
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert file.stat().st_size > 0


def test_the_command_line_takes_several_and_names_the_unknown(cli):
    ended = cli("model=multi_mlp", "stages=2", "tracker=tensorbord")
    assert ended.code == 2
    assert ended.err.startswith(
        "error: tracker=tensorbord: unknown tracker (did you mean tensorboard?); valid: files, "
    )
