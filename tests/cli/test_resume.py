"""A sweep that was cut short goes on: each run comes to its end exactly once, and none is mixed up with another."""

# ruff: noqa: E501  (a message stands on one line)
from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipezoo.cli.folder_lock import locked
from pipezoo.cli.request import Request
from pipezoo.cli.resume import NOTE, SweepRefused, asked_folder, begin, done_already, resumed
from pipezoo.config.resolved import ResolvedConfig
from pipezoo.errors import ConfigError
from tests.support.command_line import Warm

NET = """
import os, time
from pathlib import Path
from torch import nn

class Net(nn.Sequential):
    def __init__(self, name: int = 0):
        first = not Path(f"began-{name}").exists()
        with open(f"began-{name}", "a") as file:
            file.write("once ")
        if name == 1 and first:
            time.sleep(60)
        super().__init__(nn.Linear(4, 4))
"""
WORDS = ("model=mine", "model.name=0,1,2", "data.d_hid=4", "split=modules", "stages=1", "steps=2", "verify=false")
THEIRS = ("--config-dir", "theirs")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A model whose run 1 hangs the first time, and that counts how often each is begun."""
    (tmp_path / "their_net.py").write_text(NET)
    (tmp_path / "theirs" / "model").mkdir(parents=True)
    (tmp_path / "theirs" / "model" / "mine.yaml").write_text("_target_: their_net.Net\nname: 0\n")
    return tmp_path


def status_of(folder: Path) -> str:
    try:
        return str(json.loads((folder / "result.json").read_text())["status"])
    except OSError:
        return "missing"


def sweep_words(*words: str) -> list[str]:
    return ["-m", *WORDS, *words, *THEIRS, "hydra.sweep.dir=sweep"]


def cut_short(sweep: Warm | subprocess.Popen[bytes], folder: Path, number: int) -> None:
    """Send a sweep a signal in the middle of run 1; run 0 is done."""
    until = time.monotonic() + 90
    while not ((folder / "began-1").exists() and status_of(folder / "sweep" / "0") == "ok"):
        assert time.monotonic() < until
        time.sleep(0.02)
    sweep.send_signal(number)


def rows_of(folder: Path) -> list[tuple[str, str, str]]:
    with (folder / "sweep.csv").open() as file:
        return [(row["job"], row["model.name"], row["status"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("number", "code", "left"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "interrupted"),
        (signal.SIGKILL, -signal.SIGKILL, "running"),
    ],
)
def test_a_sweep_goes_on_where_a_signal_stopped_it(cli, start, theirs, number, code, left):
    sweep = start(*sweep_words())
    cut_short(sweep, theirs, number)
    assert sweep.wait(30).code == code
    assert [status_of(theirs / "sweep" / name) for name in "012"] == ["ok", left, "missing"]
    first = (theirs / "sweep" / "0" / "result.json").read_bytes()

    ended = cli("-m", "sweep.resume=sweep", *THEIRS)
    assert (ended.code, ended.err) == (0, "")
    assert rows_of(theirs / "sweep") == [("0", "0", "ok"), ("1", "1", "ok"), ("2", "2", "ok")]
    assert [(theirs / f"began-{name}").read_text().count("once") for name in "02"] == [1, 1]
    assert (theirs / "sweep" / "0" / "result.json").read_bytes() == first
    assert status_of(theirs / "sweep" / ".before" / "1.1") == left
    lines = ended.out.splitlines()
    assert lines[0].startswith("[0] ")
    assert lines[0].endswith("  kept: ok")
    assert lines[1].endswith("  runs anew; what it left before is in sweep/.before/1.1")
    assert (theirs / "sweep" / "1" / ".hydra" / "overrides.yaml").read_text().count("sweep.resume") == 0


def test_with_another_launcher_too(cli, environment, theirs, no_process_left):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs hydra-joblib-launcher")
    command = [sys.executable, "-m", "pipezoo", *sweep_words(*JOBLIB)]
    sweep = subprocess.Popen(command, cwd=theirs, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    cut_short(sweep, theirs, signal.SIGINT)
    sweep.communicate(timeout=60)
    assert sweep.returncode in (130, 1)
    until = time.monotonic() + 30
    while (ended := cli("sweep.resume=sweep", *THEIRS, *JOBLIB)).code == 2 and time.monotonic() < until:
        assert "still runs in another process" in ended.err  # joblib's worker finishes what it has begun
    assert ended.code == 0, ended.err
    assert [status for *_, status in rows_of(theirs / "sweep")] == ["ok", "ok", "ok"]
    assert [(theirs / f"began-{name}").read_text().count("once") for name in "02"] == [1, 1]


def test_a_sweep_whose_words_or_config_changed_is_refused_and_untouched(cli, tmp_path):
    words = ("model=multi_mlp", "model.d_hid=8", "split=modules", "stages=1", "steps=1,2", "verify=false")
    assert cli("-m", *words, "hydra.sweep.dir=sweep").code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "sweep").glob("*/**/*") if path.is_file()}

    other = cli("-m", *words[:-2], "steps=1,3", "sweep.resume=sweep")
    assert (other.code, len(other.error_lines)) == (2, 1)
    assert other.err.startswith("error: sweep.resume=sweep: was started with model=multi_mlp model.d_hid=8")
    again = cli("-m", *words, "hydra.sweep.dir=sweep")
    assert (again.code, again.error_lines) == (
        6,
        [
            f"error: hydra.sweep.dir={tmp_path}/sweep: already holds a sweep; sweep.resume={tmp_path}/sweep goes on with it"
        ],
    )
    config = tmp_path / "sweep" / "1" / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.3", "lr: 0.5"))
    before[config] = config.read_bytes()
    changed = cli("-m", *words, "sweep.resume=sweep")
    assert (changed.code, changed.error_lines) == (
        2,
        ["error: sweep.resume=sweep: run 1 there has optimizer.lr=0.5, not 0.3; valid: the config it was started with"],
    )
    assert {path: path.read_bytes() for path in (tmp_path / "sweep").glob("*/**/*") if path.is_file()} == before


def note(folder: Path, words: list[str], of_hydra: list[str] = [], config_dirs: list[str] = []) -> None:  # noqa: B006
    folder.mkdir(exist_ok=True)
    (folder / NOTE).write_text(json.dumps({"words": words, "hydra": of_hydra, "config_dirs": config_dirs}))


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["sweep.resume=s", *JOBLIB, "hydra.sweep.subdir=x"], "-m seed=1,2 hydra/launcher=joblib hydra.launcher.n_jobs=2 hydra.sweep.subdir=x"),
        (["seed=1,2", "sweep.resume='s'", *JOBLIB, "hydra.sweep.subdir=x"], "-m seed=1,2 hydra/launcher=joblib hydra.launcher.n_jobs=2 hydra.sweep.subdir=x"),
        (["sweep.resume=s", "hydra/launcher=basic", "hydra.sweep.subdir=x"], "-m seed=1,2 hydra/launcher=basic hydra.sweep.subdir=x"),
        (["debug=true", "sweep.resume=s", "hydra/launcher=basic", "hydra.sweep.subdir=x"], "-m seed=1,2 debug=true hydra/launcher=basic hydra.sweep.subdir=x"),
    ],
)  # fmt: skip
def test_the_words_of_the_sweep_are_typed_again(typed, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    note(tmp_path / "s", ["seed=1,2"], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.subdir=x"])
    assert resumed([], typed, []) == [*line.split(), "hydra.sweep.dir='s'", "sweep.resume='s'"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["sweep.resume=s", "seed=1"], "sweep.resume=s: was started with seed=1,2; valid: the same words, or none of them"),
        (["sweep.resume=t"], "sweep.resume=t: holds no sweep (there is no sweep.json)"),
        (["sweep.resume=torn"], "sweep.resume=torn: sweep.json is not the note of a sweep"),
        (["sweep.resume=s", "hydra.sweep.dir=t"], "sweep.resume=s: says where the sweep goes; leave hydra.sweep.dir out"),
        (["sweep.resume=h"], "sweep.resume=h: was started with hydra/launcher, hydra.launcher.n_jobs, which count when they are typed again"),
        (["sweep.resume=own"], "sweep.resume=own: was started with your own YAML files, which count when you name them: --config-dir /x/conf"),
    ],
)  # fmt: skip
def test_what_is_no_such_sweep_is_refused_in_one_line(typed, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    note(tmp_path / "s", ["seed=1,2"])
    note(tmp_path / "h", ["seed=1,2"], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"])
    note(tmp_path / "own", ["model=mine"], config_dirs=["/x/conf"])
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / NOTE).write_text('{"words": ')
    with pytest.raises(ConfigError) as error:
        resumed([], typed, [])
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("goes_on", "code", "message"),
    [
        (True, 2, "sweep.resume={}: still runs in another process"),
        (False, 6, "hydra.sweep.dir={}: a sweep is running there in another process"),
    ],
)
def test_a_sweep_that_another_process_runs_is_left_to_it(goes_on, code, message, tmp_path):
    with locked(tmp_path), pytest.raises(SweepRefused) as refusal:
        begin(tmp_path, ["seed=1,2"], [], [], goes_on)
    assert (refusal.value.error.exit_code, str(refusal.value.error)) == (code, message.format(tmp_path))


def test_null_goes_on_with_nothing():
    assert asked_folder(["sweep.resume=null", "seed=1"]) is None
    assert asked_folder(["seed=1"]) is None


def test_a_run_that_another_process_holds_is_not_taken_from_it(tmp_path):
    folder = tmp_path / "0"
    folder.mkdir()
    (folder / "result.json").write_text('{"status": "running"}')
    request = Request(ResolvedConfig({}), folder, title="[0]", sweep=tmp_path, goes_on=True)
    with locked(folder), pytest.raises(SweepRefused) as refusal:
        done_already(request, print)
    assert str(refusal.value.error) == f"sweep.resume={tmp_path}: run 0 still runs in another process"


def test_what_a_run_left_is_moved_aside_as_often_as_it_is_run_anew(tmp_path):
    folder, said = tmp_path / "0", []
    for _ in range(2):
        folder.mkdir(exist_ok=True)
        (folder / "result.json").write_text('{"status": "failed", "exit_code": 4}')
        request = Request(ResolvedConfig({}), folder, title="[0]", sweep=tmp_path, goes_on=True)
        assert done_already(request, said.append) is None
    assert said == [f"[0]  runs anew; what it left before is in {tmp_path}/.before/0.{number}" for number in (1, 2)]
    assert list(folder.iterdir()) == []


def test_a_file_cannot_ask_for_it(cli, tmp_path):
    (tmp_path / "theirs" / "experiment").mkdir(parents=True)
    (tmp_path / "theirs" / "experiment" / "sly.yaml").write_text("# @package _global_\nsweep:\n  resume: elsewhere\n")
    for words in (["experiment=sly"], ["-m", "experiment=sly", "seed=1,2", "hydra.sweep.dir=sweep"]):
        ended = cli(*words, *THEIRS)
        assert ended.code == 2
        assert ended.error_lines == [
            "error: sweep.resume=elsewhere: is only taken from the command line, never from a file"
        ]
