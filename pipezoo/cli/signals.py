"""Ctrl-C and SIGTERM. Imports next to nothing, so that a command is quiet when it is interrupted as early as can be."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM came. A KeyboardInterrupt, so that nothing on its way takes it for an ordinary error."""


def catch_signals() -> None:
    """Have Ctrl-C and SIGTERM end this process in good order, with what was reached written down; a second Ctrl-C, now.

    The ranks die with this process.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGINT, end_now)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def end_now(number: int, frame: FrameType | None) -> NoReturn:
        if sys.stderr.isatty():
            os.write(2, b"\x1b[?25h\n")  # a progress bar hides the cursor
        os._exit(130)

    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, end)
        signal.signal(signal.SIGTERM, end)


def interrupted(error: KeyboardInterrupt) -> tuple[int, str]:
    """The exit code, and its one line."""
    return (143, "interrupted by SIGTERM") if isinstance(error, Terminated) else (130, "interrupted")
