"""Standard output and error that never cost a run: closed, full, or without a reader, what is printed there is lost."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class _Forgiving(io.FileIO):
    """A file that takes what cannot be written for written."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:  # no reader, no room, no terminal any more
            return len(data)


def mend_streams() -> None:
    """Have the standard streams of this process open, and printing to them raise nothing."""
    for number in (0, 1, 2):  # in this order: a new file takes the lowest free number
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, sys.stderr = forgiving(1, sys.stdout), forgiving(2, sys.stderr)


def forgiving(number: int, like: Any = None) -> io.TextIOWrapper:
    """A text stream to a file descriptor, encoded as ``like``, that raises nothing when it is written to."""
    file = io.BufferedWriter(_Forgiving(number, "w", closefd=False))
    encoding, errors = getattr(like, "encoding", None) or "utf-8", getattr(like, "errors", None) or "backslashreplace"
    return io.TextIOWrapper(file, encoding, errors, line_buffering=number == 2 or os.isatty(number))
