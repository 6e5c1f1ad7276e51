"""The command line, run in a fork of this process, which has imported torch already: much quicker than a new one."""

from __future__ import annotations

import gc
import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path

import pipezoo.cli.main
from tests.support.warm_up import wait_for_no_disk, warm_up

SMALL = ("model=multi_mlp", "model.d_hid=16", "split=modules", "microbatches=4", "steps=4", "verify=false")


@dataclass
class Command:
    """A command line that runs in ``folder``, in a session of its own."""

    folder: Path
    words: tuple[str, ...]
    began: float = field(default_factory=time.time)
    pid: int = 0
    code: int | None = None
    ended: float = 0.0

    def start(self) -> Command:
        self.folder.mkdir(parents=True, exist_ok=True)
        warm_up()
        gc.freeze()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._run()
            finally:
                os._exit(99)
        return self

    def _run(self) -> None:
        os.setsid()
        wait_for_no_disk()
        os.chdir(self.folder)
        for number, name in ((0, os.devnull), (1, "out"), (2, "err")):
            file = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(file, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.argv = ["pipezoo", *self.words]
        self._main()

    def _main(self) -> None:
        pipezoo.cli.main.main()

    def wait(self, seconds: float = 60.0) -> Command:
        """Until it has ended. Kills all of it and fails after ``seconds``."""
        until = time.time() + seconds
        while not self.over() and time.time() < until:
            time.sleep(0.005)
        if self.code is None:
            self.kill()
            raise AssertionError(f"still running after {seconds:g} s: {' '.join(self.words)}\n{self.err}")
        return self

    def over(self) -> bool:
        """Whether it has ended; notes how, and when this was first asked after it."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code, self.ended = os.waitstatus_to_exitcode(status), time.time()
        return self.code is not None

    def kill(self) -> None:
        """All of it."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def processes(self) -> list[int]:
        """Those of its session that are alive: its ranks are, whoever their parent is by now."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(session) == self.pid and state not in "ZX":
                found.append(int(stat.parent.name))
        return found

    def gone_after(self, limit: float) -> float:
        """Seconds until none of its processes is left; fails after ``limit``."""
        began = time.time()
        while left := self.processes():
            assert time.time() - began < limit, left
            time.sleep(0.005)
        return time.time() - began

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()


class Script(Command):
    """``python words[0]`` in ``folder``."""

    def _main(self) -> None:
        sys.argv, sys.path[0] = [*self.words], str(self.folder)
        try:
            runpy.run_path(self.words[0], run_name="__main__")
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)


def command(folder: Path, *words: str) -> Command:
    """``python -m pipezoo words...`` on a small model, its run in ``folder/run``."""
    return Command(folder, (*SMALL, "hydra.run.dir=run", *words)).start()


class Ahead:
    """Commands that begin before their turn: ``wide`` of them at once, since most of their time is waiting."""

    def __init__(self, starts: dict[Hashable, Callable[[], Command]], wide: int = 3) -> None:
        self._starts, self._wide = starts, wide
        self._running: dict[Hashable, Command] = {}

    def ended(self, which: Hashable, seconds: float = 60.0) -> Command:
        """That one, and all of it: fails after ``seconds``, or if something outlives one of them by half a second."""
        warm_up()
        until = time.time() + seconds
        names = [*self._starts]
        for name in names[names.index(which) :][: self._wide]:
            if name not in self._running:
                self._running[name] = self._starts[name]()
        while self._running[which].code is None and time.time() < until:
            for command in self._running.values():
                if command.code is None and command.over():
                    command.gone_after(0.5)
            time.sleep(0.005)
        return self._running[which].wait(0.0)

    def end(self) -> None:
        for command in self._running.values():
            if command.code is None:
                command.kill()
