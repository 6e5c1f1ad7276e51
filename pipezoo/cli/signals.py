"""Ctrl-C and SIGTERM. Imports next to nothing, so that a command is quiet when it is interrupted as early as can be.

nothing is begun (imports, composing)     one line, and this process is gone: whoever imports may catch an
                                          exception, but no exit
begin()                                   an exception, so that what was reached is written down
where Python drops that exception         it is raised again a moment later (a hook of fork, a finalizer)
a second Ctrl-C                           now
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

AGAIN = 0.02  # seconds after which an exception that Python has dropped is raised again


class Terminated(KeyboardInterrupt):
    """SIGTERM came. A KeyboardInterrupt, so that nothing on its way takes it for an ordinary error."""


class _State:
    """Of this process: whether something has begun that is worth an end in good order, and the signal that came."""

    begun = False
    arrived: int | None = None
    clear_away: Callable[[], None] | None = None


def catch_signals() -> None:
    """Have Ctrl-C and SIGTERM end this process. The ranks die with it."""
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, _end)
        signal.signal(signal.SIGTERM, _end)
        sys.unraisablehook = _dropped


def begin() -> None:
    """From now on a signal is an exception. Call it before the first thing that has to be cleared away."""
    _State.begun = True
    check()


def clear_away_with(clear_away: Callable[[], None]) -> None:
    """Have this called when a signal ends the process before anything has begun."""
    _State.clear_away = clear_away


def check() -> None:
    """Raise what a signal has raised already, if somebody has caught it.

    Raises:
        KeyboardInterrupt: a signal came; :class:`Terminated` where it was SIGTERM.
    """
    if _State.arrived is not None:
        raise _interrupt(_State.arrived)


def arrived() -> KeyboardInterrupt | None:
    """The interrupt of the signal that came, whatever became of it; None where none came."""
    return None if _State.arrived is None else _interrupt(_State.arrived)


def interrupted(error: KeyboardInterrupt) -> tuple[int, str]:
    """The exit code, and its one line."""
    return (143, "interrupted by SIGTERM") if isinstance(error, Terminated) else (130, "interrupted")


def _end(number: int, frame: FrameType | None) -> None:
    if not _State.begun:
        code, line = interrupted(_interrupt(number))
        if _State.clear_away is not None:
            _State.clear_away()
        _leave(code, f"{line}\n")
    _State.arrived = number
    signal.signal(signal.SIGINT, _end_now)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _interrupt(number)


def _end_now(number: int, frame: FrameType | None) -> NoReturn:
    _leave(130, "\x1b[?25h\n" if os.isatty(2) else "")  # a progress bar hides the cursor


def _leave(code: int, text: str) -> NoReturn:
    """Without a word of Python's, and without its streams, which may be in use where the signal came."""
    with suppress(OSError):
        os.write(2, text.encode())
    os._exit(code)


def _interrupt(number: int) -> KeyboardInterrupt:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


def _dropped(unraisable: Any) -> None:
    """Python drops what is raised in a hook of ``os.fork``, in a finalizer, in a callback: not an interrupt."""
    if _State.arrived is not None and isinstance(unraisable.exc_value, KeyboardInterrupt):
        signal.signal(signal.SIGALRM, lambda number, frame: check())
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:
        sys.__unraisablehook__(unraisable)
