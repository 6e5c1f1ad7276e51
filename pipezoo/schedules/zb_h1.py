"""ZB-H1: 1F1B with a split backward; later ranks put weight gradients off, which fills a third of the bubble.

Qi et al., "Zero Bubble Pipeline Parallelism", arXiv:2401.10241, section 2.3 (handcrafted schedule 1)

    bubble     (p-1)(TF+TB-TW);  (p-1)/(3m+p-1) of the makespan at equal costs
    memory     the activations of p microbatches on every rank: what 1F1B keeps on its first

    Rank r starts with p - r forwards, so it may put r weight gradients off before it holds p activations.

    p=3, m=4

    rank 0  F0 F1 F2 .  .  I0 W0 F3 I1 W1 I2 W2 I3 W3
    rank 1  .  F0 F1 .  I0 F2 I1 W0 F3 I2 W1 I3 W2 W3
    rank 2  .  .  F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3
"""

from __future__ import annotations

from pipezoo.schedule.builders.delayed_weight import delay_weight_grads
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import check_equal, check_int


def zb_h1(num_ranks: int, num_microbatches: int, stages_per_rank: int = 1) -> Schedule:
    """The ZB-H1 order; stage ``s`` is on rank ``s``.

    Raises:
        ValueError: a count below 1, or more than one stage per rank.
    """
    p = check_int("num_ranks", num_ranks, 1)
    m = check_int("num_microbatches", num_microbatches, 1)
    why = "zb_h1 runs one stage on each rank (interleaved_zero_bubble runs more)"
    check_equal("stages_per_rank", stages_per_rank, 1, why)

    orders = (delay_weight_grads(m, p - rank, rank).on([rank]) for rank in range(p))
    return Schedule.from_columns(orders, "zb_h1")
