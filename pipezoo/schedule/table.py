"""The raw columns of a schedule, before anything is proved of them, and the errors that point into them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipezoo.errors import ScheduleError
from pipezoo.schedule.action import Action

Ints = NDArray[np.int32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Table:
    """The columns of a schedule (``[num_actions]``, rank after rank) with the rank of every action."""

    op: NDArray[np.int8]
    stage: Ints
    microbatch: Ints
    offsets: NDArray[np.int64]
    rank: Ints

    def show(self, i: int | np.integer[Any]) -> str:
        return str(Action.of_row(self.stage[i], self.op[i], self.microbatch[i]))

    def fault(self, i: int | np.integer[Any], why: str) -> ScheduleError:
        """The error about action ``i``: ``rank 1: 2F0 <why>``."""
        return ScheduleError(f"rank {self.rank[i]}: {self.show(i)} {why}", int(i))


@dataclass(frozen=True)
class Computations:
    """Where the computations of a complete table are: ``[num_stages, num_microbatches]`` indices each.

    ``back`` is the full backward or its input gradient, ``weight`` the weight gradient or -1 where it is not split off.
    """

    forward: Ints
    back: Ints
    weight: Ints


def first(wrong: Mask) -> tuple[int, ...] | None:
    """The index of the first true element, None where there is none."""
    return tuple(int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape)) if wrong.any() else None
