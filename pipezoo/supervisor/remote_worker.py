"""A process of the run on another machine, or started by somebody else, as its supervisor sees it: through a line.

agent (node_agent.py)                          supervisor
beat: age, step, action, halted   ──> line ──> the same numbers that a page of memory has of a local one
step, saved, done, error          ──> line ──> as a local one says them; times moved to this machine's clock
gone: exit code                   ──> line ──> it ended without a word
log, file                         ──> line ──> appended here; written here
terminate, kill, stacks           <── line <──
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pipezoo.schedule.action import Action
from pipezoo.supervisor.line import Line
from pipezoo.supervisor.processes import death
from pipezoo.supervisor.stall_diagnosis import UNHEARD
from pipezoo.supervisor.worker import WORKER_LOG
from pipezoo.supervisor.worker_channel import Phase
from pipezoo.supervisor.workers import Worker

SILENT = 2.0  # seconds without a beat after which an agent is said not to be heard of
FORWARDED = ("step", "saved", "done", "error")
TIMES = ("began", "ended", "resumed")  # of a message about a step, on the clock of its machine


class RemoteWorker(Worker):
    """One process behind a line.

    Args:
        name: like ``rank 1 on nodeb``.
        line: to the agent that started it.
        pid: on its own machine.
        files: where what it leaves is written, where its folder is not this one.
        log: what it prints is appended there.
        clock: turns a time of its machine into one of this one.
    """

    def __init__(
        self,
        name: str,
        line: Line,
        actions: Sequence[Action],
        pid: int | None,
        files: Path,
        log: Path,
        clock: Callable[[float], float],
    ) -> None:
        super().__init__(name, actions, [time.monotonic_ns(), 0, int(Phase.START)])
        self.line, self._pid, self._files, self._log, self._clock = line, pid, files, log, clock
        self._moved = self._heard_at = time.monotonic()
        self._raw = -1
        self._halted = self._ended = self._dumped = False
        self._code: int | None = None
        self._kept: list[dict[str, Any]] = []
        self._file: BinaryIO | None = None

    @property
    def pid(self) -> int | None:
        return self._pid

    def fileno(self) -> int:
        return self.line.fileno()

    def is_gone(self) -> bool:
        return self._ended or not self.line.open

    def messages(self) -> list[dict[str, Any]]:
        found, self._kept = self._kept, []
        for message in self.line.messages():
            self._heard_at = time.monotonic()
            if message["kind"] in FORWARDED:
                found.append(self._translated(message))
            else:
                self._take(message)
        self.open = self.line.open and not self._ended
        return found

    def how_it_ended(self) -> str:
        if self._ended:
            return death(self._code)
        if self.line.why:
            return f"does not answer any more ({self.line.why})"
        return "closed its line without a word"

    def is_halted(self) -> bool:
        return self._halted

    def state(self) -> str:
        state = super().state()
        silent = time.monotonic() - self._heard_at
        return f"{UNHEARD} for {silent:.0f} s" if state == "running" and silent > SILENT else state

    def dump_stack(self, log: Path, title: str, until: float) -> None:
        self._append(f"\n{WORKER_LOG} {title}\n".encode())
        self._dumped = False
        self.line.send("stacks")
        while not self._dumped and self.line.open and (left := until - time.monotonic()) > 0:
            self._listen(left)

    def save_after(self, steps: int) -> None:
        self.line.send("save", steps=steps)

    def terminate(self) -> None:
        self.line.send("terminate")

    def kill(self) -> None:
        self.line.send("kill")

    def join(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.is_gone() and (left := until - time.monotonic()) > 0:
            self._listen(left)

    def close(self) -> None:
        """The line stays: its agent waits for the run's exit code."""

    def _listen(self, seconds: float) -> None:
        for message in self.line.wait(seconds):
            if message["kind"] in FORWARDED:
                self._kept.append(self._translated(message))
            else:
                self._take(message)

    def _translated(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["kind"] == "step":
            message |= {name: self._clock(message[name]) for name in TIMES}
        elif message["kind"] == "error":
            message["at"] = time.monotonic() - message.pop("age")
        return message

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "beat":
            if message["moved"] != self._raw:
                self._raw = message["moved"]
                self.beats[:] = (
                    time.monotonic_ns() - int(message["age"] * 1e9),
                    int(message["step"]),
                    int(message["at"]),
                )
            self._halted = bool(message["halted"])
        elif kind == "gone":
            self._ended, self._code = True, message["code"]
        elif kind == "log":
            self._append(message["blob"])
        elif kind == "file":
            self._write(message)
        elif kind == "dumped":
            self._dumped = True

    def _append(self, text: bytes) -> None:
        with self._log.open("ab") as file:
            file.write(text)

    def _write(self, message: dict[str, Any]) -> None:
        """One piece of a file, of which the first names it; it is a plain name, and none that was there before."""
        if self._file is None:
            name = Path(message["name"]).name
            self._file = (self._files / name).open("xb")
        self._file.write(message.get("blob", b""))
        if message["last"]:
            self._file.close()
            self._file = None
