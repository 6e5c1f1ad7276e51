"""Hydra composes in a process of its own while this one imports; what it asks for is done here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from pipezoo.__main__ import will_import_torch
from pipezoo.cli.compose_subprocess import compose_apart
from pipezoo.errors import OutputError

SLOW = "import time; time.sleep(60)"  # a module that takes its time


def test_what_the_child_asks_for_is_done_here():
    here, asked = os.getpid(), []

    def perform(request):
        asked.append((request, os.getpid()))
        return request * 2

    assert compose_apart(lambda ask: ask(1) + ask(20), (), perform) == 42
    assert asked == [(1, here), (20, here)]


def test_what_is_raised_here_is_raised_there():
    def compose(ask):
        try:
            ask("x")
        except OutputError as error:
            return 6 if str(error) == "x: cannot be written" else 1
        return 0

    def perform(request):
        raise OutputError(f"{request}: cannot be written")

    assert compose_apart(compose, (), perform) == 6


def test_an_interrupt_here_ends_both():
    pids = []

    def compose(ask):
        ask(os.getpid())
        time.sleep(60)
        return 0

    def perform(pid):
        pids.append(pid)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compose_apart(compose, (), perform)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


@pytest.mark.parametrize(("ending", "code"), [("return 2", 2), ("sys.exit(2)", 2), ("os.kill(os.getpid(), 9)", 1)])
def test_an_end_without_a_request_does_not_wait_for_the_import(ending, code, tmp_path, environment):
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "command.py").write_text(
        "import os, sys, time\nfrom pipezoo.cli.compose_subprocess import compose_apart\n"
        f"def compose(ask):\n    time.sleep(0.3)\n    {ending}\n"
        "sys.exit(compose_apart(compose, ('slow',), print))\n"
    )
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "command.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == code
    assert time.monotonic() - began < 10.0
    assert ("the process that composes the config was killed by SIGKILL" in ended.stderr) == (code == 1)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("", True),
        ("verify stages=2", True),
        ("-m stages=2,4 hydra.sweep.dir=x", True),
        ("--config-dir conf model=mine", True),
        ("task=simulate", False),
        ("task=train,simulate -m", False),
        ("--help", False),
        ("--cfg job", False),
        ("--info defaults", False),
        ("experiment=schedules -m", False),
        ("-m hydra/launcher=joblib", False),
    ],
)
def test_only_what_is_certain_to_train_imports_torch_before_it_is_composed(line, answer, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr("pipezoo.__main__.unsafe_to_fork", lambda: "")
    words = [word if word != "verify" else "task=verify" for word in line.split()]
    assert will_import_torch(words) == answer


def test_a_halt_while_torch_is_imported_is_no_end(environment, tmp_path, no_process_left):
    words = ["model=multi_mlp", "model.d_hid=8", "stages=1", "steps=1", "verify=false", "hydra.run.dir=here"]
    command = [sys.executable, "-m", "pipezoo", *words]
    run = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    time.sleep(0.25)
    os.killpg(run.pid, signal.SIGSTOP)
    time.sleep(0.3)
    os.killpg(run.pid, signal.SIGCONT)
    assert run.wait(60) == 0
