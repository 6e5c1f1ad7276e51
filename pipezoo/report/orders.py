"""The orders that the page offers: every fixed schedule at a few sizes, packed as small ints.

one action = op (2 bits) | stage (5 bits) | microbatch (5 bits)        a rank after the other, ``offsets`` between
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipezoo.errors import PipezooError
from pipezoo.results.run import Run
from pipezoo.results.schedule_file import schedule_file
from pipezoo.results.sweep_table import inner
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules import ZOO
from pipezoo.simulator.cost import Cost

RANKS = (2, 3, 4, 6, 8)
MICROBATCHES = (2, 4, 6, 8, 12, 16)
BITS = 5  # of a stage and of a microbatch
MOST_ACTIONS = 1000  # of an order that is edited by hand
LARGEST_FILE = 16 * MOST_ACTIONS  # bytes
OWN = "this run"


def orders(ranks: Sequence[int] = RANKS, microbatches: Sequence[int] = MICROBATCHES) -> dict[str, Any]:
    """The names, sizes and orders; an order's key is ``name,ranks,microbatches``, missing where there is none."""
    found: dict[str, Any] = {}
    for name in ZOO.names():
        for num_ranks in ranks:
            for num_microbatches in microbatches:
                try:
                    schedule = ZOO[name](num_ranks, num_microbatches)
                except ValueError:
                    continue
                if max(schedule.num_stages, schedule.num_microbatches) <= 2**BITS:
                    found[f"{name},{num_ranks},{num_microbatches}"] = packed(schedule)
    return {"names": ZOO.names(), "ranks": list(ranks), "microbatches": list(microbatches), "orders": found}


def orders_of(run: Run) -> dict[str, Any] | None:
    """The order of a simulation with its costs, and the fixed schedules of its size; None where it is not for editing.

    That is a run that trained, or an order with more than :data:`MOST_ACTIONS` actions.
    """
    file, told = schedule_file(run.folder), inner(run.result, "prediction", "cost")
    if run.result.get("task") != "simulate" or file is None or not isinstance(told, dict):
        return None
    try:
        schedule = Schedule.from_csv(file).compute_only() if file.stat().st_size < LARGEST_FILE else None
        cost = Cost.from_dict(told)
    except (PipezooError, ValueError, OSError):
        return None
    if schedule is None or schedule.num_actions > MOST_ACTIONS:
        return None
    if max(schedule.num_stages, schedule.num_microbatches) > 2**BITS:
        return None
    offered = orders([schedule.num_ranks], [schedule.num_microbatches])
    offered["names"].insert(0, OWN)
    offered["orders"][f"{OWN},{schedule.num_ranks},{schedule.num_microbatches}"] = packed(schedule)
    return offered | {"cost": _plain(cost.for_stages(schedule.num_stages), schedule)}


def _plain(cost: Cost, schedule: Schedule) -> dict[str, Any]:
    """What ``clock.js`` calls costs; an op that nobody measured is None."""
    seconds = [[None if np.isnan(value) else value for value in row] for row in cost.seconds.tolist()]
    neighbours = cost.p2p_seconds(list(range(schedule.num_stages)))
    return {
        "seconds": seconds,
        "p2p": neighbours.tolist(),
        "keeps": cost.activation_bytes.tolist(),
        "frees": cost.freed_by_input_grad.tolist(),
        "unit": cost.unit,
    }


def packed(schedule: Schedule) -> dict[str, Any]:
    """One order: what its ranks compute, pairs that overlap as their two actions."""
    schedule = schedule.compute_only()
    codes = schedule.op.astype(np.uint16) << 2 * BITS
    codes |= schedule.stage.astype(np.uint16) << BITS
    codes |= schedule.microbatch.astype(np.uint16)
    text = base64.b64encode(codes.astype("<u2").tobytes()).decode("ascii")
    return {"offsets": schedule.offsets.tolist(), "actions": text}
