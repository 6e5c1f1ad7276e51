"""V-Min: a V of two stages a rank at a third of 1F1B's memory, for about two thirds of its bubble.

Qi et al., "Pipeline Parallelism with Controllable Memory", arXiv:2405.15362

    bubble     at equal costs 4p-5 units of one stage where p is no multiple of 3 (1F1B: 6(p-1)); (4p-5)/(6m+4p-5)
    memory     the activations of floor((p+4)/3) microbatches on every rank
    needs      costs of F, I and W that are close to each other: with others ranks wait in every round

    Every pass follows its neighbour's at once, so the block is as short as it can be (patterns/building_block.py).

    p=3, m=4: rank 0 has the stages 0 and 5, rank 1 has 1 and 4, rank 2 has 2 and 3; F, I, W are of the stage on the way
    down, f, i, w of the stage on the way up

    rank 0  F0 F1 F2 .  .  f0 i0 w0 f1 .  .  I0 i1 W0 w1 f2 F3 I1 i2 W1 w2 f3 i3 I2 w3 W2 .  I3 W3
    rank 1  .  F0 F1 .  f0 .  f1 i0 w0 .  I0 F2 W0 i1 f2 w1 I1 F3 W1 i2 f3 w2 I2 i3 W2 w3 I3 W3
    rank 2  .  .  F0 f0 F1 f1 .  .  i0 I0 w0 W0 F2 f2 i1 I1 w1 W1 F3 f3 i2 I2 w2 W2 i3 I3 w3 W3
"""

from __future__ import annotations

from pipezoo.schedule.builders.building_block import weave
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import check_equal, check_int


def v_min(num_ranks: int, num_microbatches: int, stages_per_rank: int = 2) -> Schedule:
    """The V-Min order; rank ``r`` has the stages ``r`` and ``2 * num_ranks - 1 - r``.

    Raises:
        ValueError: a count below 1, or other than two stages per rank.
    """
    p = check_int("num_ranks", num_ranks, 1)
    m = check_int("num_microbatches", num_microbatches, 1)
    check_equal("stages_per_rank", stages_per_rank, 2, "v_min runs exactly 2 stages on each rank, placed as a V")
    gap = 0 if p % 3 else 2  # keeps i out of the units of F, and I out of those of f
    block = [(rank, 2 * p - 1 - rank, 2 * p + gap + rank, 4 * p - 1 + gap - rank) for rank in range(p)]
    return weave(block, m, "v_min")
