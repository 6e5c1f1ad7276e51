"""ZB-V: two stages a rank, placed as a V, so that the rank that starts a forward also ends it.

Qi et al., "Zero Bubble Pipeline Parallelism", arXiv:2401.10241, section 6; torch's order

    bubble     span 0, makespan (p-1)/(6m+p-1), at equal costs of F, I and W and m >= 2p-1
    memory     the activations of p microbatches on every rank, as 1F1B

    p=3, m=5: rank 0 has the stages 0 and 5, rank 1 has 1 and 4, rank 2 has 2 and 3; F, I, W are of the stage on the way
    down, f, i, w of the stage on the way up

    rank 0  F0 F1 F2 F3 F4 f0 i0 w0 f1 i1 w1 f2 i2 w2 I0 W0 f3 i3 w3 I1 W1 f4 i4 w4 I2 W2 I3 W3 I4 W4
    rank 1  .  F0 F1 F2 f0 F3 f1 i0 w0 f2 i1 w1 F4 I0 W0 f3 i2 w2 I1 W1 f4 i3 w3 I2 i4 I3 W2 I4 W3 w4 W4
    rank 2  .  .  F0 f0 F1 f1 F2 f2 i0 w0 F3 I0 W0 f3 i1 w1 F4 I1 W1 f4 i2 w2 I2 i3 I3 i4 I4 W2 w3 w4 W3 W4
"""

from __future__ import annotations

from pipezoo.schedule.builders.phases import Steps, unroll
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import check_equal, check_int


def zbv(num_ranks: int, num_microbatches: int, stages_per_rank: int = 2) -> Schedule:
    """The ZB-V order; rank ``r`` has the stages ``r`` and ``2 * num_ranks - 1 - r``.

    Raises:
        ValueError: a count below 1, or other than two stages per rank.
    """
    p = check_int("num_ranks", num_ranks, 1)
    m = check_int("num_microbatches", num_microbatches, 1)
    check_equal("stages_per_rank", stages_per_rank, 2, "zbv runs exactly 2 stages on each rank, placed as a V")
    full = max(m, 2 * p - 1)  # fewer do not fill the V: they take the order of a full one, without the others

    def order(rank: int) -> Steps:
        return unroll(
            (2 * (p - rank) - 1, "F0"),
            (rank, "F1 F0"),
            (p - rank, "F1 I1 W1"),
            (full - (2 * p - rank - 1), "F0 I0 W0 F1 I1 W1"),
            (p - rank - 1, "I0 W0 F1 I1 W1"),
            (rank, "I0 I1"),
            (p - rank, "I0 W0"),
            (rank, "W1"),
            (rank, "W0"),
        ).up_to(m)

    return Schedule.from_columns((order(rank).on([rank, 2 * p - 1 - rank]) for rank in range(p)), "zbv")
