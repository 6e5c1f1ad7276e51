"""The order that ran, in a run's folder: ``schedule.csv``, or ``schedule.csv.gz`` where it has very many actions."""

from __future__ import annotations

import zlib
from pathlib import Path

from pipezoo.results.run_dir import whole_file
from pipezoo.schedule.schedule import Schedule

SCHEDULE = "schedule.csv"
PACKED = "schedule.csv.gz"
MOST_PLAIN = 1_000_000  # actions; some 8 MB of text


def write_schedule(folder: str | Path, schedule: Schedule) -> Path:
    """Write the order into a run's folder, whole; ``schedule=csv`` reads either file. Raises OutputError."""
    path = Path(folder) / (SCHEDULE if schedule.num_actions <= MOST_PLAIN else PACKED)
    with whole_file(path) as file:
        if path.name == SCHEDULE:
            file.writelines(schedule.csv_pieces())
        else:
            packer = zlib.compressobj(1, wbits=31)  # gzip without a time: equal orders, equal files
            file.writelines(packer.compress(piece) for piece in schedule.csv_pieces())
            file.write(packer.flush())
    return path


def schedule_file(folder: str | Path) -> Path | None:
    """The file of the order in a run's folder, None where there is none."""
    paths = (Path(folder) / name for name in (SCHEDULE, PACKED))
    return next((path for path in paths if path.is_file()), None)
