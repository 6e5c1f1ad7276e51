"""Looped BFS: GPipe with v stages on every rank; a stage runs all microbatches before the rank's next stage begins.

Lamy-Poirier, "Breadth-First Pipeline Parallelism", arXiv:2211.05953

    bubble     (p-1)(TF+TB+TW)/v;  (p-1)/(mv+p-1) of the makespan, for m >= p
    memory     the activations of m microbatches on every rank

    p=3, v=2, m=3; stage s is on rank s % p; backwards take the microbatches last to first; a backward takes two units

    rank 0  0F0 0F1 0F2 3F0 3F1 3F2 .   .   .   .   .   .   3B2---- ...
    rank 1      1F0 1F1 1F2 4F0 4F1 4F2 .   .   4B2---- 4B1---- 4B0---- 1B2---- ...
    rank 2          2F0 2F1 2F2 5F0 5F1 5F2 5B2---- 5B1---- 5B0---- 2B2---- 2B1---- 2B0----
"""

from __future__ import annotations

import numpy as np

from pipezoo.action import Op
from pipezoo.arguments import check_int
from pipezoo.phases import Steps
from pipezoo.schedule import Schedule


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
