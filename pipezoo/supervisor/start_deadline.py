"""A limit on everything that a command does before its first process starts: composing, imports, building."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from pipezoo.errors import NoProgressError

DEFAULT = 600.0  # seconds, as launch.start_timeout has where nobody says another one
AGAIN = 0.5  # seconds after which the error comes again, should somebody have caught it
SOON = 1e-3  # seconds; zero would switch the alarm off


class _Deadline:
    """Of this process: since when it runs, how long it is, and the error that came when it had passed."""

    since: float | None = None
    seconds = DEFAULT
    passed: NoProgressError | None = None


def begin_deadline(seconds: float) -> None:
    """Have NoProgressError raised here in so many seconds, unless :func:`end_deadline` is called before.

    Where one runs already, this is its length from now on; when it began stays. The error comes between two steps of
    Python: a single call into a library is not cut short.
    """

    def late(number: int, frame: FrameType | None) -> None:
        _Deadline.passed = NoProgressError(f"no process was started within launch.start_timeout={seconds:g} s")
        raise _Deadline.passed

    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGALRM, late)
        if _Deadline.since is None:
            _Deadline.since, _Deadline.passed = time.monotonic(), None
        _Deadline.seconds = seconds
        signal.setitimer(signal.ITIMER_REAL, max(SOON, _Deadline.since + seconds - time.monotonic()), AGAIN)


def end_deadline() -> NoProgressError | None:
    """Raise it no more. Returns the error where the time had passed, whatever became of it."""
    if _Deadline.since is not None:  # else the alarm is somebody else's
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    passed, _Deadline.passed, _Deadline.since = _Deadline.passed, None, None
    return passed


@contextmanager
def deadline_of_its_own() -> Iterator[None]:
    """The same limit as the last one, on the block alone."""
    begin_deadline(_Deadline.seconds)
    try:
        yield
    finally:
        late = end_deadline()
    if late is not None:
        raise late
