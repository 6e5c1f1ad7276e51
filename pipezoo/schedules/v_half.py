"""V-Half: a V of two stages a rank at half of 1F1B's memory, for about half of its bubble.

Qi et al., "Pipeline Parallelism with Controllable Memory", arXiv:2405.15362

    bubble     at equal costs 3p-7 units of one stage for even p >= 4 (1F1B: 6(p-1)); (3p-7)/(6m+3p-7)
    memory     the activations of floor((p+2)/2) microbatches on every rank
    needs      costs of F, I and W that are close to each other: a tight block has no room for others

    A forward takes two units a rank on its way down and one on its way up; an input gradient the same
    (patterns/building_block.py).

    p=3, m=4: rank 0 has the stages 0 and 5, rank 1 has 1 and 4, rank 2 has 2 and 3; F, I, W are of the stage on the way
    down, f, i, w of the stage on the way up

    rank 0  F0 F1 F2 .  .  f0 i0 w0 f1 i1 w1 I0 F3 W0 .  f2 i2 I1 w2 W1 .  f3 i3 I2 w3 W2 .  I3 W3
    rank 1  .  F0 F1 .  f0 .  f1 i0 w0 F2 I0 i1 W0 w1 f2 F3 I1 i2 W1 w2 f3 .  I2 i3 W2 w3 I3 W3
    rank 2  .  .  F0 f0 F1 f1 .  .  i0 I0 w0 F2 W0 f2 i1 I1 w1 F3 W1 f3 i2 I2 w2 W2 i3 I3 w3 W3
"""

from __future__ import annotations

from pipezoo.schedule.builders.building_block import weave
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import check_equal, check_int


def v_half(num_ranks: int, num_microbatches: int, stages_per_rank: int = 2) -> Schedule:
    """The V-Half order; rank ``r`` has the stages ``r`` and ``2 * num_ranks - 1 - r``.

    Raises:
        ValueError: a count below 1, or other than two stages per rank.
    """
    p = check_int("num_ranks", num_ranks, 1)
    m = check_int("num_microbatches", num_microbatches, 1)
    check_equal("stages_per_rank", stages_per_rank, 2, "v_half runs exactly 2 stages on each rank, placed as a V")
    gap = 0 if p % 2 else 3  # keeps i out of the units of F
    block = [(2 * rank, 3 * p - 2 - rank, 3 * p - 1 + gap + 2 * rank, 6 * p - 2 + gap - rank) for rank in range(p)]
    return weave(block, m, "v_half")
