"""Eager 1F1B: 1F1B whose ranks run further ahead, so that messages arrive before anybody waits for them.

Zhuang et al., "On Optimizing the Communication of Model Parallelism", MLSys 2023, arXiv:2211.05322, section 4

    bubble     (p-1)(TF+TB+TW), as 1F1B; a p2p message costs 2(p-1)Tc once, where 1F1B pays again in
               every round of p microbatches
    memory     the activations of ahead (p-1) + 1 microbatches on the first rank, 1F1B's with ahead=1

    Rank r starts with 1 + ahead (p-1-r) forwards. With ahead=2, the paper's, the input of a forward and the gradient of
    a backward have a whole F+B of time to travel.

    p=3, m=5, ahead=2; a backward takes two units

    rank 0  F0 F1 F2 F3 F4 .  .  B0--- .  B1--- .  B2--- .  B3--- .  B4---
    rank 1  .  F0 F1 F2 .  B0--- F3 B1--- F4 B2--- .  B3--- .  B4---
    rank 2  .  .  F0 B0--- F1 B1--- F2 B2--- F3 B3--- F4 B4---
"""

from __future__ import annotations

from pipezoo.schedule.builders.phases import Steps, unroll
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import check_equal, check_int


def eager_1f1b(num_ranks: int, num_microbatches: int, stages_per_rank: int = 1, ahead: int = 2) -> Schedule:
    """The eager 1F1B order; stage ``s`` is on rank ``s``.

    Args:
        ahead: forwards of the warm-up for each rank that comes after, beyond the one that every rank starts with.

    Raises:
        ValueError: a count below 1, or more than one stage per rank.
    """
    p = check_int("num_ranks", num_ranks, 1)
    m = check_int("num_microbatches", num_microbatches, 1)
    check_int("ahead", ahead, 1)
    why = "eager_1f1b runs one stage on each rank (interleaved_1f1b and looped_bfs run more)"
    check_equal("stages_per_rank", stages_per_rank, 1, why)

    def order(rank: int) -> Steps:
        warmup = min(1 + ahead * (p - 1 - rank), m)
        return unroll((warmup, "F"), (m - warmup, "B F"), (warmup, "B"))

    return Schedule.from_columns((order(rank).on([rank]) for rank in range(p)), "eager_1f1b")
