"""What a cluster's partitions allow, so that a job that none takes is refused before it is submitted."""

from __future__ import annotations

import math
import subprocess
from dataclasses import dataclass

from pipezoo.errors import ArgumentError
from pipezoo.launch.slurm import Slurm
from pipezoo.validators import check_word

SECONDS = 20.0  # for which the controller may take to answer


@dataclass(frozen=True)
class Partition:
    """A partition: its nodes, and the minutes after which it ends a job."""

    name: str
    nodes: int
    minutes: float
    is_default: bool = False


def partitions() -> list[Partition]:
    """Those of this cluster; none where sinfo does not say."""
    try:
        words = ["sinfo", "-h", "-s", "-o", "%P|%D|%l"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    return [partition for line in done.stdout.splitlines() if (partition := _read(line)) is not None]


def check_partition(launch: Slurm, known: list[Partition]) -> None:
    """Raises ArgumentError: no such partition, or fewer nodes or less time than the job wants."""
    by_name = {partition.name: partition for partition in known}
    if not by_name:
        return
    names = [] if launch.partition is None else launch.partition.split(",")
    for name in names:
        check_word("partition", name, by_name, "partition")
    chosen = [by_name[name] for name in names] or [one for one in known if one.is_default] or known
    where = f"partition {', '.join(one.name for one in chosen)}"
    if launch.nodes > (nodes := max(one.nodes for one in chosen)):
        raise ArgumentError("nodes", launch.nodes, f"{where} has {nodes}", f"1..{nodes}")
    if launch.time > (minutes := max(one.minutes for one in chosen)):
        raise ArgumentError("time", launch.time, f"{where} ends a job after {minutes:g} minutes", f"1..{minutes:g}")


def _read(line: str) -> Partition | None:
    """``main*|2|10:00`` is the default partition, of 2 nodes and 10 minutes."""
    name, _, rest = line.strip().partition("|")
    nodes, _, limit = rest.partition("|")
    if not name or not nodes.isdigit():
        return None
    return Partition(name.removesuffix("*"), int(nodes), minutes_of(limit), name.endswith("*"))


def minutes_of(limit: str) -> float:
    """``1-02:00:00`` is 1560; what is no time, like ``infinite``, is no limit."""
    days, dash, clock = limit.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in (*parts, *([days] if dash else []))) or not 1 <= len(parts) <= 3:
        return math.inf
    numbers = [int(part) for part in parts]
    if dash:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, (*numbers, 0)[:2]
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60
