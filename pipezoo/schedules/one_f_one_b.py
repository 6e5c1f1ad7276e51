"""1F1B: after a short warm-up each rank alternates, so that a forward begins only when a backward has freed its memory.

Narayanan et al., "PipeDream: Generalized Pipeline Parallelism for DNN Training", SOSP 2019; with one synchronous
optimizer step as "PipeDream-Flush", arXiv:2006.09503

    bubble     (p-1)(TF+TB+TW), as GPipe;  (p-1)/(m+p-1) of the makespan
    memory     the activations of p - rank microbatches: p on the first rank, whatever m is; m where there are fewer

    p=3, m=4; a backward takes two units

    rank 0  F0 F1 F2 .  .  .  .  B0--- F3 B1--- .  B2--- .  B3---
    rank 1  .  F0 F1 .  .  B0--- F2 B1--- F3 B2--- .  B3---
    rank 2  .  .  F0 B0--- F1 B1--- F2 B2--- F3 B3---
"""

from __future__ import annotations

from pipezoo.schedule.builders.phases import Steps, unroll
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import check_equal, check_int


def one_f_one_b(num_ranks: int, num_microbatches: int, stages_per_rank: int = 1) -> Schedule:
    """The 1F1B order; stage ``s`` is on rank ``s``.

    Raises:
        ValueError: a count below 1, or more than one stage per rank.
    """
    p = check_int("num_ranks", num_ranks, 1)
    m = check_int("num_microbatches", num_microbatches, 1)
    check_equal(
        "stages_per_rank",
        stages_per_rank,
        1,
        "1f1b runs one stage on each rank (interleaved_1f1b and looped_bfs run more)",
    )

    def order(rank: int) -> Steps:
        warmup = min(p - rank, m)
        return unroll((warmup, "F"), (m - warmup, "B F"), (warmup, "B"))

    return Schedule.from_columns((order(rank).on([rank]) for rank in range(p)), "1f1b")
