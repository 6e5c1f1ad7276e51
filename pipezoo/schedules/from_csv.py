"""An order of one's own, from a file in torch's format: a row per rank, an action per cell.

    0F0,0F1,0B0,0B1         rank 0
    1F0,1B0,1F1,1B1         rank 1

Empty cells are idle time and left out. ``docs/add-a-schedule.md`` walks through it.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from pipezoo.schedule.schedule import Schedule


def from_csv(file: str | Path) -> Schedule:
    """The order in ``file``, which says how many ranks, stages and microbatches there are.

    Raises:
        ScheduleError: the file cannot be read, a cell is no action, or the order is illegal; names row and column.
    """
    try:
        found = os.stat(os.fspath(file))
    except (OSError, ValueError, TypeError):
        return Schedule.from_csv(file)  # which says what is wrong
    return _proved(str(file), (found.st_mtime_ns, found.st_size, found.st_ino))


@lru_cache(maxsize=1)
def _proved(path: str, stamp: tuple[int, ...]) -> Schedule:
    """The order in a file that has not changed since; a large one takes seconds, and is asked for several times."""
    return Schedule.from_csv(path)
