"""What every task says in the same way: a line, and timelines as wide as the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pipezoo.report.ascii import draw_together
from pipezoo.results.run_dir import PICTURE, write_text
from pipezoo.results.sanitize import is_terminal
from pipezoo.simulator.timeline import Timeline

PrintLine = Callable[[str], None]
PLAIN_WIDTH = 100  # columns of a timeline that goes into a pipe
PICTURE_WIDTH = 140  # and of one that goes into a file


def silent(line: str) -> None:
    """A ``print_line`` that nobody hears; there is no bar beside it either."""


def print_timelines(timelines: Sequence[Timeline], print_line: PrintLine) -> None:
    """Draw the timelines on one axis, in colour where a person looks."""
    terminal = is_terminal(sys.stdout)
    width = shutil.get_terminal_size().columns if terminal else PLAIN_WIDTH
    print_line(f"\n{draw_together(timelines, width, colour=terminal)}\n")


def write_picture(folder: Path, timelines: Sequence[Timeline]) -> None:
    """Draw the timelines into ``timeline.txt``, for a page that has not their spans. Raises OutputError."""
    write_text(folder / PICTURE, f"{draw_together(timelines, PICTURE_WIDTH)}\n")
