"""GPipe: every forward, then every backward.

Huang et al., "GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism", arXiv:1811.06965

    bubble     (p-1)(TF+TB+TW);  (p-1)/(m+p-1) of the makespan
    memory     the activations of m microbatches on every rank

    p=3, m=4; a backward takes two units

    rank 0  F0 F1 F2 F3 .  .  .  .  .  .  B0--- B1--- B2--- B3---
    rank 1  .  F0 F1 F2 F3 .  .  .  B0--- B1--- B2--- B3---
    rank 2  .  .  F0 F1 F2 F3 B0--- B1--- B2--- B3---
"""

from __future__ import annotations

from pipezoo.schedule.builders.phases import unroll
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import check_equal, check_int


def gpipe(num_ranks: int, num_microbatches: int, stages_per_rank: int = 1) -> Schedule:
    """The GPipe order; stage ``s`` is on rank ``s``.

    Raises:
        ValueError: a count below 1, or more than one stage per rank.
    """
    p = check_int("num_ranks", num_ranks, 1)
    m = check_int("num_microbatches", num_microbatches, 1)
    check_equal(
        "stages_per_rank",
        stages_per_rank,
        1,
        "gpipe runs one stage on each rank (looped_bfs and interleaved_1f1b run more)",
    )
    order = unroll((m, "F"), (m, "B"))
    return Schedule.from_columns((order.on([rank]) for rank in range(p)), "gpipe")
