"""What fits into the memory of this machine, estimated before any of it is taken.

The estimates are low: what they refuse cannot run, and what they let pass may still be large. Measured with
``ru_maxrss`` over all generated schedules of 1 and 16384 microbatches.
"""

from __future__ import annotations

import math
import resource
from pathlib import Path

from pipezoo.errors import ConfigError
from pipezoo.results.units import bytes_text

BYTES_PER_ACTION = 34  # of an order, while it is made and proved
BYTES_PER_STAGE = 600  # of an order, whatever the microbatches
SIMULATED_PER_ACTION = 70  # the same with its simulation
SIMULATED_PER_STAGE = 1300
PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def available_bytes() -> float:
    """The memory that this process may still take: of the machine, of its control group, of its own limit.

    Infinity where the system does not say.
    """
    return min(_of_machine(), _of_control_group(), _of_process())


def check_schedule_fits(num_stages: int, num_microbatches: int, asked: str, is_simulated: bool) -> None:
    """Raise ConfigError if the order of so many stages and microbatches does not fit into memory.

    Args:
        asked: what asked for the stages, as it was typed, like ``ranks=16``.
        is_simulated: whether it is simulated, too.
    """
    per_action = SIMULATED_PER_ACTION if is_simulated else BYTES_PER_ACTION
    per_stage = SIMULATED_PER_STAGE if is_simulated else BYTES_PER_STAGE
    needed = num_stages * (2 * num_microbatches * per_action + per_stage)
    if needed <= (has := available_bytes()):
        return
    key = f"microbatches={num_microbatches}" if num_microbatches > num_stages else asked or f"stages={num_stages}"
    order = "the order and its simulation" if is_simulated else "the order"
    raise ConfigError(
        f"{key}: {order} of {num_stages} stages and {num_microbatches} microbatches would take at least "
        f"{bytes_text(needed)} of memory, and {bytes_text(has)} are free"
    )


def _of_machine() -> float:
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return math.inf


def _of_control_group() -> float:
    """Of version 2, or version 1; what the kernel can drop (files that nobody changed) is free."""
    for limit, usage, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            most, taken = (float((CGROUP / name).read_text()) for name in (limit, usage))
            stats = dict(line.split() for line in (CGROUP / stat).read_text().splitlines())
            return max(0.0, most - taken + float(stats.get("inactive_file", 0)))
        except (OSError, ValueError):  # "max" is no number: there is no limit
            continue
    return math.inf


def _of_process() -> float:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return math.inf
    try:
        pages = int((PROC / "self" / "statm").read_text().split()[0])
    except (OSError, ValueError):
        return math.inf
    return max(0.0, float(limit - pages * resource.getpagesize()))
