"""Starting and watching processes: signals, silence, messages, and what is left when it is over."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipezoo.errors import NoProgressError, OutputError, RankError
from pipezoo.results.run_dir import read_metrics, read_result
from pipezoo.runtime.start_method import start_method
from pipezoo.supervisor.supervisor import Handlers, Limits, launch
from pipezoo.supervisor.worker_channel import SupervisorChannel, WorkerChannel
from tests.supervisor.fault_rows import DEADLINE
from tests.support.command import SMALL, Command, command

LONG = ("stages=2", "steps=100000")
LIMITS = Limits(5.0, 5.0)


def running(folder: Path, *words: str) -> Command:
    """A run that has done some steps."""
    started = command(folder, *LONG, *words)
    until = time.time() + 30.0
    while len(read_metrics(folder / "run")) < 3:
        assert time.time() < until, started.err
        time.sleep(0.01)
    return started


# Signals to the command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "line"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "interrupted by SIGTERM")]
)
def test_one_signal_ends_a_run_in_good_order(tmp_path: Path, number: int, code: int, line: str) -> None:
    run = running(tmp_path)
    sent = time.time()
    os.kill(run.pid, number)
    run.wait()
    run.gone_after(0.5)
    assert run.code == code
    assert run.ended - sent < 5.0
    assert run.err == f"{line}; what was reached is in {tmp_path / 'run'}\n"
    result = read_result(tmp_path / "run")
    assert result["status"] == "interrupted"
    assert result["exit_code"] == code
    assert len(result["losses"]) >= 3
    assert result["losses"] == [entry["loss"] for entry in read_metrics(tmp_path / "run")]


def test_a_ctrl_c_of_the_terminal_reaches_everybody_and_still_ends_well(tmp_path: Path) -> None:
    run = running(tmp_path)
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait().code == 130
    assert run.err == f"interrupted; what was reached is in {tmp_path / 'run'}\n"


def test_the_second_ctrl_c_ends_it_now(tmp_path: Path) -> None:
    run = running(tmp_path)
    os.kill(run.pid, signal.SIGINT)
    os.kill(run.pid, signal.SIGINT)
    assert run.wait().code == 130
    run.gone_after(1.0)


def test_nobody_outlives_a_killed_parent(tmp_path: Path) -> None:
    run = running(tmp_path)
    assert len(run.processes()) == 3
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.gone_after(1.0)
    assert len(read_metrics(tmp_path / "run")) >= 3
    assert read_result(tmp_path / "run")["status"] == "running"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nobody_outlives_a_killed_sweep(tmp_path: Path, number: int) -> None:
    sweep = Command(
        tmp_path, ("-m", *SMALL[:-2], *LONG[1:], "verify=false", "hydra.sweep.dir=sweep", "stages=2")
    ).start()
    until = time.time() + 30.0
    while len(read_metrics(tmp_path / "sweep" / "0")) < 2:
        assert time.time() < until, sweep.err
        time.sleep(0.01)
    assert len(sweep.processes()) == 4
    os.kill(sweep.pid, number)
    sweep.wait()
    sweep.gone_after(1.0)
    assert sweep.code == (-number if number == signal.SIGKILL else 143)


def test_a_run_that_was_halted_as_a_whole_goes_on(tmp_path: Path) -> None:
    run = running(tmp_path, f"launch.step_timeout={DEADLINE}", f"launch.first_step_timeout={DEADLINE}")
    os.killpg(run.pid, signal.SIGSTOP)
    time.sleep(2 * DEADLINE)
    done = len(read_metrics(tmp_path / "run"))
    os.killpg(run.pid, signal.SIGCONT)
    until = time.time() + 30.0
    while len(read_metrics(tmp_path / "run")) < done + 5:
        assert time.time() < until, run.err
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGINT)
    run.wait()


def test_interrupted_while_torch_is_imported_is_one_line(tmp_path: Path, environment: dict[str, str]) -> None:
    words = [sys.executable, "-m", "pipezoo", "stages=2", "hydra.run.dir=run"]
    delays, began = (1.0, 2.0), time.monotonic()
    started = [
        subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) for _ in delays
    ]
    for process, delay in zip(started, delays, strict=True):
        time.sleep(max(0.0, began + delay - time.monotonic()))
        process.send_signal(signal.SIGINT)
    for process in started:
        _, err = process.communicate(timeout=30.0)
        assert process.returncode == 130
        assert err.splitlines()[0].startswith("interrupted")
        assert len(err.splitlines()) == 1


# Folders and start methods ------------------------------------------------------------------------------------------


def test_a_name_with_special_characters_is_a_folder_like_others(tmp_path: Path) -> None:
    run = command(tmp_path, "stages=1", "steps=1", "hydra.run.dir='a b#c?d%20e'").wait()
    assert run.code == 0, run.err
    assert read_result(tmp_path / "a b#c?d%20e")["status"] == "ok"


@pytest.mark.slow
def test_spawned_ranks_compute_the_same(tmp_path: Path) -> None:
    ended = command(tmp_path, "stages=2", "steps=2", "verify=true", "launch.start_method=spawn").wait(100.0)
    assert ended.code == 0, ended.err
    assert "spawned, each builds its stages anew and maps their weights\n" in ended.out
    assert read_result(tmp_path / "run")["verified"] == "exact"


def test_other_threads_are_a_reason_to_spawn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert start_method(None) == ("fork", "")
    monkeypatch.setattr("pipezoo.supervisor.processes.threading.enumerate", lambda: [FakeThread("reader")])
    assert start_method(None) == ("spawn", "other threads run (reader)")
    monkeypatch.delattr(os, "fork")
    assert start_method(None) == ("spawn", "this system has no fork")
    with pytest.raises(ValueError, match=r"launch.start_method=fork: this system has no fork; valid: spawn, null"):
        start_method("fork")


class FakeThread:
    def __init__(self, name: str) -> None:
        self.name = name


# The supervisor alone ---------------------------------------------------------------------------------------------


def start(
    folder: Path, *targets: Callable[[WorkerChannel], Any], limits: Limits = LIMITS, **handlers: Any
) -> dict[str, Any]:
    named = {f"rank {i}": target for i, target in enumerate(targets)}
    return launch(named, limits, folder / "log", handlers=Handlers(**handlers))


def test_what_the_targets_return_comes_back(tmp_path: Path) -> None:
    found = start(tmp_path, lambda channel: {1: [2.5, None, float("inf")]}, lambda channel: "text")
    assert found == {"rank 0": {1: [2.5, None, float("inf")]}, "rank 1": "text"}


def test_messages_arrive_in_order_and_whole(tmp_path: Path) -> None:
    heard: list[int] = []

    def talk(channel: WorkerChannel) -> None:
        for step in range(200):
            channel.begin_step(step)
            channel.end_step(step, 0.0, 1.0, [float(step)] * 1000)

    start(tmp_path, talk, step=lambda name, message: heard.append(int(message["losses"][-1])))
    assert heard == list(range(200))


def test_a_process_stopped_in_the_middle_of_a_message_keeps_nobody_waiting(tmp_path: Path) -> None:
    def stop_halfway(channel: WorkerChannel) -> None:
        channel._line.sendall(b"\x00\x01\x00\x00 only the beginning")
        os.kill(os.getpid(), signal.SIGSTOP)

    began = time.monotonic()
    with pytest.raises(NoProgressError, match="rank 0 is stopped"):
        start(tmp_path, stop_halfway, limits=Limits(0.5, 0.5))
    assert time.monotonic() - began < 2.5


def test_pieces_of_messages_become_whole_ones() -> None:
    ours, theirs = socket.socketpair()
    sent = Sent()
    WorkerChannel(sent, memoryview(bytearray(24)).cast("q"), 0).send("step", losses=[1.0])  # type: ignore[arg-type]
    channel, seen = SupervisorChannel(ours), []
    for byte in sent.data:
        theirs.sendall(bytes([byte]))
        seen.append(channel.messages())
    assert seen[-1] == [{"kind": "step", "losses": [1.0]}]
    assert not any(seen[:-1])
    theirs.close()
    assert channel.messages() == []
    assert not channel.open
    ours.close()


class Sent:
    data = b""

    def sendall(self, data: bytes) -> None:
        self.data += data


def test_the_first_of_several_errors_is_told_and_a_lost_connection_last(tmp_path: Path) -> None:
    def fail(channel: WorkerChannel, text: str, after: float) -> None:
        time.sleep(after)
        raise RuntimeError(text)

    lost = partial(fail, text="Connection closed by peer", after=0.0)
    first, second = partial(fail, text="the first", after=0.05), partial(fail, text="the second", after=0.15)
    with pytest.raises(RankError, match=r"rank 2 \(starting\): RuntimeError: the first; more in .*log"):
        start(tmp_path, lost, second, first)
    with pytest.raises(RankError, match=r"rank 0 .*Connection closed by peer"):
        start(tmp_path, lost)


def test_a_process_whose_child_holds_the_line_is_found_dead(tmp_path: Path) -> None:
    def leave_a_child(channel: WorkerChannel) -> None:
        if os.fork() == 0:
            time.sleep(3.0)
            os._exit(0)
        os._exit(7)

    began = time.monotonic()
    with pytest.raises(RankError, match="rank 0 left early with exit code 7"):
        start(tmp_path, leave_a_child)
    assert time.monotonic() - began < 2.0


def test_progress_resets_the_deadline(tmp_path: Path) -> None:
    def slow(channel: WorkerChannel) -> str:
        for action in range(6):
            channel.note(action)
            time.sleep(0.2)
        return "done"

    assert start(tmp_path, slow, limits=Limits(0.9, 0.9)) == {"rank 0": "done"}


def test_later_steps_have_their_own_deadline(tmp_path: Path) -> None:
    def stuck(channel: WorkerChannel) -> None:
        channel.end_step(0, 0.0, 1.0, None)
        time.sleep(30.0)

    with pytest.raises(NoProgressError, match=r"nobody moved for launch.step_timeout=0.3 s"):
        start(tmp_path, stuck, limits=Limits(60.0, 0.3))


def test_an_error_of_the_parent_ends_the_children(tmp_path: Path) -> None:
    def refuse(name: str, message: dict[str, Any]) -> None:
        raise OutputError("metrics.jsonl: cannot be written")

    def work(channel: WorkerChannel) -> None:
        channel.end_step(0, 0.0, 1.0, None)
        time.sleep(30.0)

    failures: list[dict[str, Any]] = []
    began = time.monotonic()
    with pytest.raises(OutputError):
        start(tmp_path, work, step=refuse, failure=failures.append)
    assert time.monotonic() - began < 2.0
    assert failures[0]["error"] == "metrics.jsonl: cannot be written"
    assert json.dumps(failures[0])


def test_a_full_disk_under_the_metrics_ends_with_exit_code_6(tmp_path: Path) -> None:
    run = running(tmp_path)
    import resource

    resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (1 << 12, 1 << 12))
    assert run.wait().code == 6
    assert run.err == f"error: {tmp_path / 'run' / 'metrics.jsonl'}: cannot be written: File too large\n"
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes().endswith(b"}\n")
    assert read_result(tmp_path / "run")["exit_code"] == 6


@pytest.mark.skipif(not Path("/proc/sys").exists(), reason="needs a folder that nobody can write")
def test_a_folder_that_cannot_be_written_is_found_before_the_ranks_start(tmp_path: Path) -> None:
    ended = Command(tmp_path, (*SMALL, "stages=2", "hydra.run.dir=/proc/sys/pipezoo")).start().wait()
    assert ended.code == 6
    assert ended.err == "error: hydra.run.dir=/proc/sys/pipezoo: cannot be made: No such file or directory\n"


# What a terminal and a folder go through ----------------------------------------------------------------------------


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    ended = command(tmp_path, "stages=2", "schedule=csv", "schedule.file='\x1b[31m\u202ered'").wait()
    assert ended.code == 2
    assert "\x1b" not in ended.err
    assert "\u202e" not in ended.err


def test_a_folder_that_is_deleted_ends_the_run_though_nobody_writes_there(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()

    def delete_it(channel: WorkerChannel) -> None:
        folder.rename(tmp_path / "elsewhere")
        time.sleep(60.0)

    began = time.monotonic()
    with pytest.raises(OutputError, match="run: was moved or deleted while the run wrote there"):
        start(folder, delete_it)
    assert time.monotonic() - began < 10.0
