"""The processes of a run, as the one that watches them sees them: those that it forked, and those on other machines.

LocalWorker     forked or spawned here: a socket pair, a page of memory for its beats, a process id
RemoteWorker    behind a line (remote_worker.py): its own machine's agent forked it, and says how it does
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipezoo import errors
from pipezoo.schedule.action import Action
from pipezoo.supervisor.processes import death, is_stopped, signals_held
from pipezoo.supervisor.stall_diagnosis import RankStatus
from pipezoo.supervisor.worker import WORKER_LOG, run_worker
from pipezoo.supervisor.worker_channel import HEARTBEAT, SAVE, SupervisorChannel, WorkerChannel


class Worker:
    """One process, as its supervisor sees it.

    ``beats``: nanoseconds of ``time.monotonic`` when it last moved, its step, and its action or phase.
    """

    def __init__(self, name: str, actions: Sequence[Action], beats: Any) -> None:
        self.name, self.actions, self.beats = name, actions, beats
        self.done = False
        self.result: Any = None
        self.error: dict[str, Any] | None = None
        self.steps = 0
        self.open = True  # whether it can still say something
        self.gone_at = 0.0  # seconds of time.monotonic at which its line was found closed

    @property
    def over(self) -> bool:
        """Whether it said its last word, or will say none any more."""
        return self.done or self.error is not None or not self.open

    def status(self) -> RankStatus:
        nanoseconds, step, at = self.beats[:SAVE]
        return RankStatus(self.name, self.actions, step, at, time.monotonic() - nanoseconds / 1e9, self.state())

    def state(self) -> str:
        if self.done:
            return "done"
        if self.error is not None:
            return "failed"
        if not self.open:
            return self.how_it_ended()
        return "stopped" if self.is_halted() else "running"

    @property
    def pid(self) -> int | None:
        """On its own machine."""
        raise NotImplementedError

    def fileno(self) -> int:
        """What to wait for."""
        raise NotImplementedError

    def is_gone(self) -> bool:
        """Whether the process has ended, whatever is still to be read of it."""
        raise NotImplementedError

    def messages(self) -> list[dict[str, Any]]:
        """What it has said since the last call."""
        raise NotImplementedError

    def how_it_ended(self) -> str:
        raise NotImplementedError

    def is_halted(self) -> bool:
        raise NotImplementedError

    def dump_stack(self, log: Path, title: str, until: float) -> None:
        """Have its stack written into the log, below a title, before ``until`` of ``time.monotonic``."""
        raise NotImplementedError

    def save_after(self, steps: int) -> None:
        """Have it write its part of a checkpoint after so many steps."""
        raise NotImplementedError

    def terminate(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        raise NotImplementedError

    def join(self, seconds: float) -> None:
        """Wait until it is gone, for so many seconds at most."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of it once it is gone."""
        raise NotImplementedError


class LocalWorker(Worker):
    """A child of this process."""

    def __init__(self, name: str, process: Any, line: socket.socket, actions: Sequence[Action], beats: Any) -> None:
        super().__init__(name, actions, beats)
        self.process, self.channel = process, SupervisorChannel(line)

    @property
    def pid(self) -> int | None:
        pid: int | None = self.process.pid
        return pid

    def fileno(self) -> int:
        return self.channel.line.fileno()

    def is_gone(self) -> bool:
        return self.process.exitcode is not None

    def messages(self) -> list[dict[str, Any]]:
        gone = self.is_gone()  # asked first: what it said before it went is read after
        found = self.channel.messages()
        self.open = self.channel.open and not gone  # a process of its own may hold its line open
        return found

    def how_it_ended(self) -> str:
        self.process.join(1.0)
        return death(self.process.exitcode)

    def is_halted(self) -> bool:
        return is_stopped(self.process.pid)

    def dump_stack(self, log: Path, title: str, until: float) -> None:
        if not hasattr(signal, "SIGUSR1"):
            return
        with log.open("a", encoding="utf-8") as file:
            file.write(f"\n{WORKER_LOG} {title}\n")
            size = file.tell()
        os.kill(self.process.pid, signal.SIGUSR1)
        while log.stat().st_size == size and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.003)

    def save_after(self, steps: int) -> None:
        self.beats[SAVE] = steps

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()

    def join(self, seconds: float) -> None:
        self.process.join(seconds)

    def close(self) -> None:
        self.channel.line.close()
        with contextlib.suppress(ValueError):  # it cannot even be killed: it waits for a disk that is gone
            self.process.close()


def start(
    context: Any,
    name: str,
    target: Callable[[WorkerChannel], Any],
    heartbeats: Any,
    place: int,
    log: Path,
    actions: Sequence[Action],
) -> LocalWorker:
    """Start a process that runs ``target``. ``context``: of ``multiprocessing``; ``heartbeats``: the shared page."""
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise errors.RankError(f"{name} could not be started: {error.strerror or error}") from error
    arguments = (target, theirs, heartbeats, place, os.getpid(), str(log), name)
    process = context.Process(target=run_worker, args=arguments, name=name, daemon=False)
    heartbeats[place * HEARTBEAT : place * HEARTBEAT + HEARTBEAT] = (time.monotonic_ns(), 0, -1, 0)
    try:
        with signals_held():
            process.start()
    except OSError as error:
        ours.close()
        raise errors.RankError(f"{name} could not be started: {error.strerror or error}") from error
    finally:
        theirs.close()
    page = memoryview(heartbeats).cast("B").cast("q")
    return LocalWorker(name, process, ours, actions, page[place * HEARTBEAT : place * HEARTBEAT + HEARTBEAT])


def end(workers: Sequence[Worker], grace: float) -> None:
    """Leave no process behind: those that are done have a moment to go, the others are asked, then killed."""
    try:
        for worker in workers:
            if not worker.done and not worker.is_gone():
                worker.terminate()
        until = time.monotonic() + (1.0 if all(worker.done for worker in workers) else grace)
        for worker in workers:
            if not worker.is_halted():
                worker.join(max(0.0, until - time.monotonic()))
    finally:  # a second Ctrl-C comes here at once
        for worker in workers:
            if not worker.is_gone():
                worker.kill()
        for worker in workers:
            worker.join(5.0)
            worker.close()
