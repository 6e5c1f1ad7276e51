"""ZB-H2: ZB-H1 with twice the memory, so that no rank waits between its own first and last action.

Qi et al., "Zero Bubble Pipeline Parallelism", arXiv:2401.10241, section 2.4 (handcrafted schedule 2)

    bubble     (p-1)(TF+TB-2TW) of the span, 0 at equal costs; (p-1)/(3m+p-1) of the makespan at equal costs
    memory     the activations of 2p-1 microbatches on every rank
    needs      m >= 2p-1 for that; with fewer it keeps fewer, and waits

    Rank r starts with 2(p-r)-1 forwards, as many as fit until the first gradient reaches it, and puts 2r weight
    gradients off to the end, where it would wait for nothing but the step.

    p=3, m=6

    rank 0  F0 F1 F2 F3 F4 I0 W0 F5 I1 W1 I2 W2 I3 W3 I4 W4 I5 W5
    rank 1  .  F0 F1 F2 I0 F3 I1 F4 I2 W0 F5 I3 W1 I4 W2 I5 W3 W4 W5
    rank 2  .  .  F0 I0 F1 I1 F2 I2 F3 I3 F4 I4 W0 F5 I5 W1 W2 W3 W4 W5
"""

from __future__ import annotations

from pipezoo.schedule.builders.delayed_weight import delay_weight_grads
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import check_equal, check_int


def zb_h2(num_ranks: int, num_microbatches: int, stages_per_rank: int = 1) -> Schedule:
    """The ZB-H2 order; stage ``s`` is on rank ``s``.

    Raises:
        ValueError: a count below 1, or more than one stage per rank.
    """
    p = check_int("num_ranks", num_ranks, 1)
    m = check_int("num_microbatches", num_microbatches, 1)
    why = "zb_h2 runs one stage on each rank (zbv and interleaved_zero_bubble run more)"
    check_equal("stages_per_rank", stages_per_rank, 1, why)

    orders = (delay_weight_grads(m, 2 * (p - rank) - 1, 2 * rank).on([rank]) for rank in range(p))
    return Schedule.from_columns(orders, "zb_h2")
