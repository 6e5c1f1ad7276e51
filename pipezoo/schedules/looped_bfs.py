"""Looped BFS: GPipe with v stages on every rank; a stage runs all microbatches before the rank's next stage begins.

Lamy-Poirier, "Breadth-First Pipeline Parallelism", arXiv:2211.05953

    bubble     (p-1)(TF+TB+TW)/v;  (p-1)/(mv+p-1) of the makespan, for m >= p
    memory     the activations of m microbatches on every rank

    p=3, v=2, m=3: stage s is on rank s % p; F and B are of the rank's first stage, f and b of its second.
    Backwards take the microbatches from the last to the first

    rank 0  F0 F1 F2 f0 f1 f2 .  .  .  .  .  .  b2--- b1--- b0--- B2--- B1--- B0---
    rank 1  .  F0 F1 F2 f0 f1 f2 .  .  .  b2--- b1--- b0--- B2--- B1--- B0---
    rank 2  .  .  F0 F1 F2 f0 f1 f2 b2--- b1--- b0--- B2--- B1--- B0---
"""

from __future__ import annotations

import numpy as np

from pipezoo.schedule.action import Op
from pipezoo.schedule.builders.phases import Steps
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import check_int


def looped_bfs(num_ranks: int, num_microbatches: int, stages_per_rank: int | None = 2) -> Schedule:
    """The looped BFS order; stage ``s`` is on rank ``s % num_ranks``. ``stages_per_rank=None`` means 2.

    Raises:
        ValueError: a count below 1.
    """
    p = check_int("num_ranks", num_ranks, 1)
    m = check_int("num_microbatches", num_microbatches, 1)
    v = check_int("stages_per_rank", 2 if stages_per_rank is None else stages_per_rank, 1)
    slot, microbatch = np.divmod(np.arange(m * v, dtype=np.int32), m)
    order = Steps(
        np.repeat(np.array([Op.F, Op.B], dtype=np.int8), m * v),
        np.concatenate([slot, slot[::-1]]),
        np.concatenate([microbatch, microbatch[::-1]]),
    )
    return Schedule.from_columns((order.on(range(rank, p * v, p)) for rank in range(p)), "looped_bfs")
