"""An order of one's own, from a file in torch's format: a row per rank, an action per cell.

    0F0,0F1,0B0,0B1         rank 0
    1F0,1B0,1F1,1B1         rank 1

Empty cells are idle time and left out. ``docs/add-a-schedule.md`` walks through it.
"""

from __future__ import annotations

from pathlib import Path

from pipezoo.schedule.schedule import Schedule


def from_csv(file: str | Path) -> Schedule:
    """The order in ``file``, which says how many ranks, stages and microbatches there are.

    Raises:
        ScheduleError: the file cannot be read, a cell is no action, or the order is illegal; names row and column.
    """
    return Schedule.from_csv(file)
