"""What the commands that read folders have in common: an error is one line on stderr, and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from pipezoo.errors import PipezooError
from pipezoo.results.sanitize import printable


def exit_code_of(work: Callable[[], None]) -> int:
    """Do it, and return the exit code of the command. A reader that has gone, as ``head`` does, is no error."""
    try:
        work()
    except PipezooError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
