"""The costs of every size that is planned for, as far as they can be had."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from pipezoo.errors import ArgumentError
from pipezoo.planner.options import PlanOptions
from pipezoo.planner.problem import ROUNDING
from pipezoo.results.units import amount
from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost

CostOf = Callable[[int, int, int], Cost]  # of so many stages, so many of them per rank, in so many microbatches
Size = tuple[int, int]  # stages per rank, microbatches


@dataclass(frozen=True)
class CostTable:
    """The costs of each size, in words why some have none, and those that one microbatch alone is too large for."""

    costs: dict[Size, Cost]
    notes: list[str]
    too_large: list[ArgumentError]


def cost_table(cost_of: CostOf, num_ranks: int, sizes: Iterable[Size], options: PlanOptions) -> CostTable:
    """Ask for the costs of each size, and hold them against the memory limit.

    Raises:
        ValueError: none has any; the reason of the last, which cuts finest, and of memory before any other.
    """
    costs: dict[Size, Cost] = {}
    notes: dict[str, None] = {}  # each once
    refused: list[ValueError] = []
    for v, m in sizes:
        try:
            cost = cost_of(num_ranks * v, v, m)
            _check_memory(cost, options)
            costs[v, m] = cost
        except ValueError as error:
            refused.append(error)
            notes[f"left out: {v} stages on each rank ({error})"] = None
    if not costs and refused:
        raise max(reversed(refused), key=_is_of_memory)
    for m in {m for _, m in costs}:
        works = [float(np.nansum(cost.seconds[:, Op.F])) for (_, n), cost in costs.items() if n == m]
        if max(works) > 1.5 * min(works):  # measured times differ a little
            notes["costs of one stage stand for every stage: more stages per rank are a larger model here"] = None
    return CostTable(costs, list(notes), [error for error in refused if _is_of_memory(error)])


def can_run(schedule: Schedule, cost: Cost) -> bool:
    """Whether the costs know all that the schedule does."""
    used = np.unique(schedule.op[schedule.op <= Op.W])
    return not np.isnan(cost.seconds[:, used]).any()


def can_split(cost: Cost) -> bool:
    """Whether the costs know the halves of every backward."""
    return not np.isnan(cost.seconds[:, Op.W]).any()


def unit_of(options: PlanOptions) -> str:
    """B where memory was said in bytes."""
    return "B" if isinstance(options.memory, str) or options.limit >= 1e4 else ""


def _is_of_memory(error: ValueError) -> TypeGuard[ArgumentError]:
    return isinstance(error, ArgumentError) and error.name == "memory"


def _check_memory(cost: Cost, options: PlanOptions) -> None:
    """A stage that keeps more than the limit for one microbatch runs in no order."""
    stage = int(np.argmax(cost.activation_bytes))
    if (least := float(cost.activation_bytes[stage])) > options.limit * (1 + ROUNDING):
        least_text, limit = (amount(value, unit_of(options)) for value in (least, options.limit))
        why = f"stage {stage} alone needs {least_text} of {limit} for one microbatch"
        raise ArgumentError("memory", options.memory, why)
