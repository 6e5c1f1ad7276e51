"""Interleaved zero bubble: interleaved 1F1B with a split backward; weight gradients wait to fill the gaps.

Qi et al., "Zero Bubble Pipeline Parallelism", arXiv:2401.10241, over the stages of arXiv:2104.04473; torch's order

    bubble     (p-1)(TF+TB-TW)/v at equal costs; (p-1)/(3mv+p-1) of the makespan, in rounds of p microbatches
    memory     the activations of p microbatches on every rank

    Rank r puts off r weight gradients: the later a rank, the sooner its first input gradient comes, and the fewer
    forwards it holds by then.

    p=3, v=2, m=3: stage s is on rank s % p; F, I, W are of the rank's first stage, f, i, w of its second

    rank 0  F0 F1 F2 f0 f1 f2 .  .  i0 w0 i1 w1 i2 w2 I0 W0 I1 W1 I2 W2
    rank 1  .  F0 F1 F2 f0 f1 .  i0 f2 i1 w0 i2 w1 I0 w2 I1 W0 I2 W1 W2
    rank 2  .  .  F0 F1 F2 f0 i0 f1 i1 f2 i2 w0 I0 w1 I1 w2 I2 W0 W1 W2
"""

from __future__ import annotations

from pipezoo.schedule.builders.delayed_weight import delay_weight_grads
from pipezoo.schedule.builders.interleaving import microbatches_per_round, take_turns
from pipezoo.schedule.builders.phases import Steps
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import check_int


def interleaved_zero_bubble(num_ranks: int, num_microbatches: int, stages_per_rank: int | None = 2) -> Schedule:
    """The interleaved zero-bubble order; stage ``s`` is on rank ``s % num_ranks``. ``stages_per_rank=None`` means 2.

    Raises:
        ValueError: a count below 1, or microbatches that do not come in equal rounds.
    """
    p = check_int("num_ranks", num_ranks, 1)
    m = check_int("num_microbatches", num_microbatches, 1)
    v = check_int("stages_per_rank", 2 if stages_per_rank is None else stages_per_rank, 1)
    per_round = microbatches_per_round(p, m)

    def order(rank: int) -> Steps:
        warmup = (v - 1) * per_round + p - 1 - rank
        return take_turns(delay_weight_grads(m * v, warmup, rank, forward_first=True), per_round, v)

    orders = (order(rank).on(range(rank, p * v, p)) for rank in range(p))
    return Schedule.from_columns(orders, "interleaved_zero_bubble")
