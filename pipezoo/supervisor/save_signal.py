"""SIGUSR2: a checkpoint now, and on with it. Slurm sends it before the time of a job is up, where it is asked to."""

from __future__ import annotations

import signal
from contextlib import suppress
from types import FrameType


class _State:
    """Of this process: whether the signal came since somebody asked."""

    came = False


def catch() -> None:
    """Have SIGUSR2 noted, which would end this process otherwise."""

    def note(number: int, frame: FrameType | None) -> None:
        _State.came = True

    if hasattr(signal, "SIGUSR2"):
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGUSR2, note)


def ignore() -> None:
    """Leave it to the process that watches this one."""
    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def came() -> bool:
    """Whether it came since the last time that this was asked."""
    found, _State.came = _State.came, False
    return found
