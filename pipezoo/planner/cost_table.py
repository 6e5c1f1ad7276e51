"""The costs of every size that is planned for, as far as they can be had."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from pipezoo.planner.options import PlanOptions, amount
from pipezoo.planner.problem import ROUNDING
from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost

CostOf = Callable[[int, int, int], Cost]  # of so many stages, so many of them per rank, in so many microbatches
Size = tuple[int, int]  # stages per rank, microbatches


def cost_table(
    cost_of: CostOf, num_ranks: int, sizes: Iterable[Size], options: PlanOptions
) -> tuple[dict[Size, Cost], list[str]]:
    """The costs of each size, and why some have none.

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
            notes[f"{v} stages per rank: {error}"] = None
    if not costs and refused:
        raise max(reversed(refused), key=lambda error: str(error).startswith("memory="))
    for m in {m for _, m in costs}:
        works = [float(np.nansum(cost.seconds[:, Op.F])) for (_, n), cost in costs.items() if n == m]
        if max(works) > 1.5 * min(works):  # measured times differ a little
            notes["costs of one stage stand for every stage: more stages per rank are a larger model here"] = None
    return costs, list(notes)


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


def _check_memory(cost: Cost, options: PlanOptions) -> None:
    """A stage that keeps more than the limit for one microbatch runs in no order."""
    stage = int(np.argmax(cost.activation_bytes))
    if (least := float(cost.activation_bytes[stage])) > options.limit * (1 + ROUNDING):
        raise ValueError(
            f"memory={options.memory}: stage {stage} alone needs {amount(least, unit_of(options))} of "
            f"{amount(options.limit, unit_of(options))} for one microbatch"
        )
