"""Whose clock shows what: each machine counts from its own start, and none runs as fast as another.

    host     ping ──────────────►  asked                 the answer was given between asked and heard;
    guest          pong at t                             t + offset = (asked + heard) / 2, and cannot be
    host     ◄──────────────────  heard                  further off than (heard - asked) / 2

Of some twenty the quickest counts. It is done before the first step and after the last one, and in between the offset
moves evenly: clocks drift by up to 50 millionths, 3 ms in a minute.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from pipezoo.supervisor.line import Line

ROUNDS = 20
PATIENCE = 5.0  # seconds for one answer


@dataclass(frozen=True)
class Offset:
    """What is added to a time of another machine.

    Args:
        at: when it was measured, on our clock, in seconds.
        seconds: to be added.
        round_trip: of the ping that it is from, in seconds; the error is half of it at most.
    """

    at: float
    seconds: float
    round_trip: float


@dataclass
class Clock:
    """Of one process: its offsets, as often as they were measured; on our own machine there are none, and it is 0."""

    offsets: list[Offset] = field(default_factory=list)

    def __call__(self, theirs: float) -> float:
        """A time of that machine on our clock. A clock that cannot be told from ours is ours."""
        if all(abs(offset.seconds) <= offset.round_trip / 2 for offset in self.offsets):
            return theirs
        first, last = self.offsets[0], self.offsets[-1]
        guess = theirs + first.seconds
        if last.at <= first.at:
            return guess
        share = (guess - first.at) / (last.at - first.at)
        return theirs + first.seconds + share * (last.seconds - first.seconds)

    @property
    def error(self) -> float:
        """Seconds that a time may be off."""
        return max((offset.round_trip / 2 for offset in self.offsets), default=0.0)

    def told(self) -> dict[str, Any]:
        """For a file."""
        return {
            "offset_seconds": [offset.seconds for offset in self.offsets],
            "round_trip_seconds": [offset.round_trip for offset in self.offsets],
            "error_seconds": self.error,
        }


def measure(line: Line) -> Offset | None:
    """The offset of the machine at the other end, which answers pings; None where it does not.

    What else arrives meanwhile is lost: call it while nothing runs there.
    """
    found: list[Offset] = []
    for number in range(ROUNDS):
        asked = time.perf_counter()
        if not line.send("ping", number=number):
            return None
        until = time.monotonic() + PATIENCE
        pong = None
        while pong is None and line.open and time.monotonic() < until:
            for message in line.wait(until - time.monotonic()):
                if message["kind"] == "pong" and message["number"] == number:
                    pong = float(message["at"])
        heard = time.perf_counter()
        if pong is None:
            return None
        found.append(Offset((asked + heard) / 2, (asked + heard) / 2 - pong, heard - asked))
    return min(found, key=lambda offset: offset.round_trip)
