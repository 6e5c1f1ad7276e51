"""A process's line to the one that started it: a page that says where it stands, and a socket for what it has to say.

    child                                       parent
    beat: time, step, action ──> shared page ──> looks when it wants to; a stopped child cannot keep it waiting
    {"kind": "step", ...}    ──> socket      ──> reads what has arrived, never waits for the rest of a message

Where a child stands is the index of the action that it is about to execute, or a :class:`Phase` outside of them.
"""

from __future__ import annotations

import marshal
import socket
import struct
from collections.abc import Mapping
from enum import IntEnum
from time import monotonic_ns
from types import MappingProxyType
from typing import Any

HEARTBEAT = 4  # int64 per child on the page: nanoseconds of time.monotonic, step, action; and, from the parent, after
# how many steps it is to write a checkpoint that is no regular one
SAVE = 3
LENGTH = struct.Struct("!I")  # in front of each message
PIECE = 1 << 16  # bytes taken from a socket at once


class Phase(IntEnum):
    """Where a rank stands outside of its actions."""

    START = -1
    JOIN = -2
    BUILD = -3
    BATCH = -4
    UPDATE = -5
    SAVE = -6
    LEAVE = -7
    EVALUATE = -8

    @property
    def word(self) -> str:
        return WORDS[self]


WORDS = {
    Phase.START: "starting",
    Phase.JOIN: "joining the others",
    Phase.BUILD: "building its stages",
    Phase.BATCH: "fetching the batch",
    Phase.UPDATE: "updating its parameters",
    Phase.SAVE: "writing a checkpoint",
    Phase.LEAVE: "leaving",
    Phase.EVALUATE: "evaluating",
}


class WorkerChannel:
    """The child's end.

    Args:
        line: a connected socket.
        heartbeats: int64 in memory that is shared with the parent, ``HEARTBEAT`` per child.
        place: which of them are this child's.
    """

    def __init__(self, line: socket.socket, heartbeats: Any, place: int) -> None:
        page = memoryview(heartbeats).cast("B").cast("q")
        self._line, self.step = line, 0
        self._beats: Any = page[place * HEARTBEAT : place * HEARTBEAT + HEARTBEAT]
        self.note(Phase.START)

    def note(self, action: int) -> None:
        """Say that this process is alive, and before which action."""
        beats = self._beats
        beats[0], beats[2] = monotonic_ns(), action

    def begin_step(self, step: int) -> None:
        self.step = self._beats[1] = step
        self.note(Phase.BATCH)

    def is_asked_to_save(self, steps: int) -> bool:
        """Whether the parent wants a checkpoint after so many steps."""
        return bool(self._beats[SAVE] == steps)

    def end_step(
        self,
        step: int,
        began: float,
        ended: float,
        losses: list[float] | None,
        numbers: Mapping[str, float] = MappingProxyType({}),
        resumed: float | None = None,
    ) -> None:
        """Times in seconds of ``time.perf_counter``, which all processes of a machine share.

        Args:
            resumed: when the training went on after what was between two steps; None: at once.
        """
        content = {"step": step, "began": began, "ended": ended, "losses": losses, "numbers": dict(numbers)}
        self.send("step", **content, resumed=ended if resumed is None else resumed)

    def send(self, kind: str, **content: Any) -> None:
        """``content``: None, numbers, strings, and lists and dicts of them."""
        text = marshal.dumps({"kind": kind, **content})
        self._line.sendall(LENGTH.pack(len(text)) + text)


class SupervisorChannel:
    """The parent's end: whole messages out of whatever pieces have arrived."""

    def __init__(self, line: socket.socket) -> None:
        line.setblocking(False)
        self.line, self._bytes, self.open = line, bytearray(), True

    def messages(self) -> list[dict[str, Any]]:
        """All messages that have arrived whole since the last call. Never waits; ``open`` turns False at the end."""
        while self.open:
            try:
                piece = self.line.recv(PIECE)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            self.open = bool(piece)
            self._bytes += piece
        return list(self._whole())

    def _whole(self) -> list[dict[str, Any]]:
        found = []
        while len(self._bytes) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._bytes)[0]
            if len(self._bytes) < end:
                break
            found.append(marshal.loads(self._bytes[LENGTH.size : end]))
            del self._bytes[:end]
        return found
