"""What starts a rank on a machine where nobody watches, and says through a line how it does.

    supervisor ──line── agent ──fork── rank

The agent computes nothing, so that it answers whatever its rank does: it sees a rank that was killed or halted, writes
down its stack, ends it, and ends it by itself when the line is gone. It leaves with the exit code of the run, which it
is told.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipezoo.supervisor.line import Line
from pipezoo.supervisor.worker_channel import SAVE
from pipezoo.supervisor.workers import LocalWorker

BEAT = 0.1  # seconds between two beats
GRACE = 0.5  # seconds between SIGTERM and SIGKILL
STACK = 0.25  # seconds that a rank has to write down its stack
PIECE = 1 << 20  # bytes of a file in one message


class Agent:
    """Of one rank.

    Args:
        line: to the supervisor.
        worker: the rank, which this process has forked.
        log: what it prints.
        files: its folder, of which all files go over the line when it is done; None: the supervisor sees them.
        heard: what the supervisor has said already.
    """

    def __init__(
        self, line: Line, worker: LocalWorker, log: Path, files: Path | None, heard: Sequence[dict[str, Any]] = ()
    ) -> None:
        self._line, self._worker, self._log, self._files = line, worker, log, files
        self._read, self._told_gone, self._kill_at = 0, False, 0.0
        self._beaten, self._heard = 0.0, [*heard]

    def serve(self) -> dict[str, Any] | None:
        """Relay until the supervisor has a last word, which is returned; None: the line is gone."""
        try:
            while self._line.open:
                self._wait()
                self._relay()
                heard, self._heard = [*self._heard, *self._line.messages()], []
                for message in heard:
                    if message["kind"] == "leave":
                        return message
                    self._obey(message)
                if self._kill_at and time.monotonic() > self._kill_at:
                    self._worker.kill()
                self._beat()
            return None
        finally:
            self._end()

    def _wait(self) -> None:
        ends: list[Any] = [self._line]
        if self._worker.open:
            ends.append(self._worker)
        with contextlib.suppress(OSError, ValueError):
            select.select(ends, [], [], BEAT)

    def _relay(self) -> None:
        for message in self._worker.messages() if self._worker.open else ():
            kind = message.pop("kind")
            if kind == "error":
                self._send_log()
                self._beat(last=True)
                self._line.send("error", age=time.monotonic() - message.pop("at"), **message)
            else:
                if kind == "done":
                    self._send_log()
                    self._send_files()
                    self._worker.done = True
                self._line.send(kind, **message)
        if self._worker.is_gone() and not self._told_gone:
            self._send_log()
            self._beat(last=True)
            self._told_gone = self._line.send("gone", code=self._worker.process.exitcode)

    def _obey(self, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "ping":
            self._line.send("pong", at=time.perf_counter(), number=message["number"])
        elif kind == "stacks":
            with contextlib.suppress(OSError):
                self._worker.dump_stack(self._log, "its stack", time.monotonic() + STACK)
            self._send_log()
            self._line.send("dumped")
        elif kind == "save":
            self._worker.save_after(int(message["steps"]))
        elif kind == "terminate" and not self._told_gone:
            self._worker.terminate()
            self._kill_at = time.monotonic() + GRACE
        elif kind == "kill" and not self._told_gone:
            self._worker.kill()

    def _beat(self, last: bool = False) -> None:
        """Where the rank stands. ``last``: before a word that it is judged by."""
        now = time.monotonic()
        if not last and (self._told_gone or now - self._beaten < BEAT):
            return
        self._beaten = now
        moved, step, at = self._worker.beats[:SAVE]
        where = {"moved": moved, "age": now - moved / 1e9, "step": step, "at": int(at)}
        tell = self._line.send if last else self._line.offer
        tell("beat", **where, halted=not last and self._worker.is_halted())

    def _send_log(self) -> None:
        """What was printed since the last time."""
        with contextlib.suppress(OSError), self._log.open("rb") as file:
            file.seek(self._read)
            while piece := file.read(PIECE):
                self._read += len(piece)
                self._line.send("log", piece)

    def _send_files(self) -> None:
        for path in sorted(self._files.iterdir()) if self._files is not None else ():
            if not path.is_file() or path == self._log:
                continue
            size = os.path.getsize(path)
            with path.open("rb") as file:
                sent = 0
                while True:
                    piece = file.read(PIECE)
                    sent += len(piece)
                    last = sent >= size or not piece
                    self._line.send("file", piece, name=path.name, last=last)
                    if last:
                        break

    def _end(self) -> None:
        worker = self._worker
        if not worker.is_gone():
            worker.kill()
        worker.join(5.0)
        self._send_log()
        worker.close()
