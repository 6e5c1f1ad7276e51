"""What every task says in the same way: a line, and timelines as wide as the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence

from pipezoo.report.ascii import draw_together
from pipezoo.results.sanitize import is_terminal
from pipezoo.simulator.timeline import Timeline

PrintLine = Callable[[str], None]
PLAIN_WIDTH = 100  # columns of a timeline that goes into a pipe


def silent(line: str) -> None:
    """A ``print_line`` that nobody hears; there is no bar beside it either."""


def print_timelines(timelines: Sequence[Timeline], print_line: PrintLine) -> None:
    """Draw the timelines on one axis, in colour where a person looks."""
    terminal = is_terminal(sys.stdout)
    width = shutil.get_terminal_size().columns if terminal else PLAIN_WIDTH
    print_line(f"\n{draw_together(timelines, width, colour=terminal)}\n")
