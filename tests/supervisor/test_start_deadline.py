"""The limit on what is done before a process starts: one clock from the first word on, composing included."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipezoo.cli import hydra_command
from pipezoo.errors import NoProgressError
from pipezoo.launch import Processes, Virtual
from pipezoo.supervisor.start_deadline import DEFAULT, begin_deadline, deadline_of_its_own, end_deadline
from tests.support.command import Command


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    end_deadline()


def sleep(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.001)


def test_it_is_as_long_as_the_launches_say() -> None:
    assert Processes().start_timeout == Virtual().start_timeout == DEFAULT


def test_it_ends_what_takes_longer() -> None:
    begin_deadline(0.02)
    with pytest.raises(NoProgressError, match=r"no process was started within launch.start_timeout=0.02 s"):
        sleep(5)


def test_another_length_keeps_its_beginning() -> None:
    began = time.monotonic()
    begin_deadline(60.0)
    sleep(0.3)
    begin_deadline(0.5)
    with pytest.raises(NoProgressError, match=r"start_timeout=0.5 s"):
        sleep(5)
    assert time.monotonic() - began < 0.8  # and not after 0.3 + 0.5


def test_nobody_hears_of_it_after_its_end() -> None:
    begin_deadline(0.02)
    assert end_deadline() is None
    sleep(0.04)


def test_who_takes_it_for_another_error_is_told_at_the_end() -> None:
    begin_deadline(0.02)
    with suppress(Exception):
        sleep(5)
    assert isinstance(end_deadline(), NoProgressError)


def test_each_block_has_its_own() -> None:
    begin_deadline(0.2)
    end_deadline()
    for _ in range(3):
        with deadline_of_its_own():
            sleep(0.1)
    with pytest.raises(NoProgressError), deadline_of_its_own():
        sleep(5)


@pytest.mark.parametrize("words", [[], ["-m", "seed=0,1"], ["task=simulate"]])
def test_composing_is_limited_too(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def compose(*_: object) -> None:
        try:
            sleep(5)
        except NoProgressError as error:
            raise KeyError("somebody's error") from error

    monkeypatch.setattr("pipezoo.cli.hydra_app.run_hydra", compose)
    assert hydra_command.hydra_command([*words, "launch.start_timeout=0.05"]) == 124
    assert capsys.readouterr().err == "error: no process was started within launch.start_timeout=0.05 s\n"


def test_a_sweep_may_take_longer_than_one_run(tmp_path: Path) -> None:
    words = ("-m", "simulate", "ranks=2", "seed=0,1,2,3,4,5", "launch.start_timeout=1.5", "hydra.sweep.dir=sweep")
    assert Command(tmp_path, words).start().wait().code == 0


def test_a_fifo_among_the_yaml_files_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    os.mkfifo(tmp_path / "mine" / "model" / "net.yaml")
    ended = Command(tmp_path, ("--config-dir", "mine", "model=net")).start().wait(20)
    assert (ended.code, ended.err) == (2, "error: --config-dir=mine: model/net.yaml is no regular file\n")
