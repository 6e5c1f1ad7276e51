"""A limit on everything that a run does before its first process starts: imports, building, cutting, trying out."""

from __future__ import annotations

import signal
from contextlib import suppress
from types import FrameType

from pipezoo.errors import NoProgressError

AGAIN = 0.5  # seconds after which the error comes again, should somebody have caught it


class _Deadline:
    """Of this process: the error that came when it had passed."""

    runs = False
    passed: NoProgressError | None = None


def begin_deadline(seconds: float) -> None:
    """Have NoProgressError raised here in so many seconds, unless :func:`end_deadline` is called before.

    It comes between two steps of Python: a single call into a library is not cut short.
    """

    def late(number: int, frame: FrameType | None) -> None:
        _Deadline.passed = NoProgressError(f"no process was started within launch.start_timeout={seconds:g} s")
        raise _Deadline.passed

    _Deadline.passed = None
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        _Deadline.runs = True


def end_deadline() -> NoProgressError | None:
    """Raise it no more. Returns the error where the time had passed, whatever became of it."""
    if _Deadline.runs:  # else the alarm is somebody else's
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    passed, _Deadline.passed, _Deadline.runs = _Deadline.passed, None, False
    return passed
