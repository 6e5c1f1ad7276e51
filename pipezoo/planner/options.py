"""What a plan may look like: memory, what may vary, and how long to search (``conf/plan``)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from pipezoo.errors import ArgumentError
from pipezoo.validators import check_int

OBJECTIVES = ("step", "span")
UNITS = {"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True)
class PlanOptions:
    """The arguments of ``conf/plan/search.yaml``.

    Args:
        memory: the most activations that a rank may hold, in the unit of the costs: a number, or text like ``2GB``.
            None: no limit.
        time_limit_s: seconds of search after the fixed schedules.
        iterations: how many changes of good orders each search tries at most.
        schedules: names of the fixed schedules to look at; None: all.
        stages_per_rank: which numbers of stages a rank may have.
        microbatches: which numbers of microbatches; None: the one that the run has.
        place_weight_grads: whether fixed schedules are also tried with their weight gradients moved.
        search: whether orders are searched for, besides the fixed ones.
        objective: ``step``, or ``span`` for an optimizer without a barrier.
        top: how many rows of the table are shown.

    Raises:
        ValueError: a value out of range, by name.
    """

    memory: float | str | None = None
    time_limit_s: float = 10.0
    iterations: int = 200
    schedules: tuple[str, ...] | None = None
    stages_per_rank: tuple[int, ...] = (1, 2)
    microbatches: tuple[int, ...] | None = None
    place_weight_grads: bool = True
    search: bool = True
    objective: str = "step"
    top: int = 15

    def __post_init__(self) -> None:
        _ = self.limit
        if not _is_number(self.time_limit_s) or not self.time_limit_s > 0:
            why = "must be a number > 0, of seconds; search=false searches nothing"
            raise ArgumentError("time_limit_s", self.time_limit_s, why)
        check_int("iterations", self.iterations, 0)
        check_int("top", self.top, 1)
        for name in ("stages_per_rank", "microbatches"):
            counts = getattr(self, name)
            if counts is not None and not counts:
                raise ArgumentError(name, [], "needs at least one number", ">= 1")
            for count in counts or ():
                check_int(name, count, 1)
        if self.objective not in OBJECTIVES:
            raise ArgumentError("objective", self.objective, "unknown word", OBJECTIVES)

    @property
    def limit(self) -> float:
        """The memory as a number; infinity for none."""
        return math.inf if self.memory is None else bytes_of("memory", self.memory)


def bytes_of(name: str, value: object) -> float:
    """``2GB`` as a number; a number as it is. Raises ArgumentError for what is neither."""
    number = value
    if isinstance(value, str) and (match := re.fullmatch(r"\s*([\d.]+(?:e[+-]?\d+)?)\s*([a-zA-Z]*)\s*", value)):
        digits, unit = match.groups()
        if unit in UNITS and digits.count(".") <= 1:
            number = float(digits) * UNITS[unit]
    if not _is_number(number) or not number > 0:  # type: ignore[operator]
        raise ArgumentError(name, value, "must be a number > 0, or text like 2GB, 512MiB; null: no limit")
    return float(number)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
