"""The side of every other process of a world: it comes with the token, is told what to run, and prints nothing.

What it has to say goes over its line; what it is told is JSON, and its last word is the exit code of the run.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipezoo.errors import ConfigError, NoProgressError, PipezooError, RankError
from pipezoo.found_world import FoundWorld
from pipezoo.schedule.action import Action
from pipezoo.supervisor.garbage import frozen
from pipezoo.supervisor.line import Line, connect
from pipezoo.supervisor.node_agent import Agent
from pipezoo.supervisor.save_signal import ignore
from pipezoo.supervisor.this_machine import address_towards, host_name, installed_versions, network
from pipezoo.supervisor.worker_channel import HEARTBEAT, WorkerChannel
from pipezoo.supervisor.workers import start
from pipezoo.supervisor.world_store import COME, WorldStore

LATE = 5.0  # seconds in which a network file system shows what another machine wrote
LOCAL_TYPES = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "apfs", "f2fs")  # file systems


class DismissedError(Exception):
    """Rank 0 has said the exit code of the run."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Membership:
    """This process in its world, from the first key to the last word.

    Args:
        found: the world.
        words: that were typed.
        port: that ``launch.port`` was typed as, if it was.
        timeout: seconds for all that is done before the first step.

    Raises:
        DismissedError: there is nothing to run.
        PipezooError: rank 0 is not there.
    """

    def __init__(self, found: FoundWorld, words: Sequence[str], port: int | None, timeout: float) -> None:
        self.found, self._until = found, time.monotonic() + timeout
        self._heard: list[dict[str, Any]] = []
        store = WorldStore(found, port, timeout)
        self.group = store.group()
        towards = address_towards(store.address, store.port)
        me = {"host": host_name(found.node), "network": network(), "address": towards}
        store.tell(f"machine/{found.rank}", me)
        store.wait_for(["machine/0"], time.monotonic() + min(timeout, COME))
        lines = store.wait_for(["lines"], self._until)[0]
        if "leave" in lines:
            store.tell(f"left/{found.rank}", 1)
            raise DismissedError(int(lines["leave"]))
        hello = {"rank": found.rank, "pid": os.getpid(), "versions": installed_versions(), "words": [*words]}
        self.line: Line = connect(lines["address"], lines["port"], float(lines["patience"]), lines["token"], **hello)
        self.address = str(lines["address"])

    def request(self) -> dict[str, Any]:
        """What is to be run. Raises DismissedError."""
        return self._wait_for("request")

    def scratch(self) -> dict[str, Any]:
        """Where rank 0 left a file to be seen. Raises DismissedError."""
        return self._wait_for("scratch")

    def refuse(self, error: BaseException) -> None:
        """Say why this process cannot run what it was told to."""
        known = isinstance(error, PipezooError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        self.line.send("refused", type=type(error).__name__ if known else "RankError", text=text)

    def last_word(self) -> int:
        """The exit code of the run, waited for."""
        try:
            self._wait_for("leave")
        except DismissedError as dismissed:
            return dismissed.code
        except PipezooError as error:
            return error.exit_code
        return RankError.exit_code

    def ready(self, shares_folder: bool) -> None:
        """Say that the pipeline is built, and wait until all have done so. Raises DismissedError."""
        self.line.send("ready", shares_folder=shares_folder)
        self._wait_for("go")

    def work(
        self,
        name: str,
        target: Callable[[WorkerChannel], Any],
        actions: Sequence[Action],
        files: Path,
        sends_files: bool,
    ) -> int:
        """Fork the rank and say how it does; the exit code of the run."""
        log = files / f"rank-{self.found.rank}.log"
        log.touch()
        context = multiprocessing.get_context("fork")
        with frozen():
            page = context.RawArray("q", HEARTBEAT)
            worker = start(context, name, target, page, 0, log, actions)
            last = Agent(self.line, worker, log, files if sends_files else None, self._heard).serve()
        if last is not None:
            return int(last["code"])
        return NoProgressError.exit_code if self.line.why else RankError.exit_code

    def _wait_for(self, kind: str) -> dict[str, Any]:
        while True:
            self._heard += [] if self._heard else self.line.wait(1.0)
            while self._heard:
                message = self._heard.pop(0)
                if message["kind"] == "leave":
                    raise DismissedError(int(message["code"]))
                if message["kind"] == "ping":
                    self.line.send("pong", at=time.perf_counter(), number=message["number"])
                elif message["kind"] == kind:
                    return message
            if not self.line.open:
                why = NoProgressError if self.line.why else RankError
                raise why(f"rank 0 is gone{f' ({self.line.why})' if self.line.why else ''}")


def sees(token_file: Path, token: str) -> bool:
    """Whether this process sees what rank 0 wrote: on a network's file system it may come late."""
    until = time.monotonic() + (0.0 if _is_local(token_file) else LATE)
    while True:
        try:
            os.listdir(token_file.parent)  # which asks the server anew
            return token_file.read_text() == token
        except OSError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.1)


def _is_local(path: Path) -> bool:
    """Whether the file system of ``path`` is one of this machine alone, as far as the system tells."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return False
    inside = [(len(where), kind) for _, where, kind, *_ in mounts if path.absolute().is_relative_to(where)]
    return max(inside, default=(0, ""))[1] in LOCAL_TYPES


def be_quiet() -> int:
    """Print nothing from now on, and leave Ctrl-C to rank 0; a descriptor for a last word that nobody else can say."""
    spoken = os.dup(2)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ignore()
    return spoken


def check_local_rank(local_rank: int | None, num_gpus: int, host: str) -> None:
    """Raises ConfigError where this process has no GPU of its own; one that sees a single GPU was given that one."""
    if num_gpus == 1 or (local_rank is not None and local_rank < num_gpus):
        return
    raise ConfigError(
        f"device=cuda: {host} has {num_gpus} GPUs, and this is its process {local_rank}; "
        "valid: one process for each GPU, or device=cpu"
    )
