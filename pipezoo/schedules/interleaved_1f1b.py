"""Interleaved 1F1B: 1F1B with v smaller stages on every rank, so that filling the pipeline takes 1/v of the time.

Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", arXiv:2104.04473

    bubble     (p-1)(TF+TB+TW)/v;  (p-1)/(mv+p-1) of the makespan, in rounds of p microbatches
    memory     2(p-1) + (v-1)p + 1 activations of one stage on the first rank, which is p + (p-1)/v of a whole rank
    messages   v times as many as 1F1B

    p=3, v=2, m=3: stage s is on rank s % p; F and B are of the rank's first stage, f and b of its second

    rank 0  F0 F1 F2 f0 f1 f2 .  .  .  .  b0--- .  b1--- .  b2--- B0--- B1--- B2---
    rank 1  .  F0 F1 F2 f0 f1 f2 .  b0--- .  b1--- .  b2--- B0--- B1--- B2---
    rank 2  .  .  F0 F1 F2 f0 b0--- f1 b1--- f2 b2--- B0--- B1--- B2---
"""

from __future__ import annotations

from pipezoo.schedule.builders.interleaving import microbatches_per_round, take_turns
from pipezoo.schedule.builders.phases import Steps, unroll
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import check_int


def interleaved_1f1b(num_ranks: int, num_microbatches: int, stages_per_rank: int | None = 2) -> Schedule:
    """The interleaved 1F1B order; stage ``s`` is on rank ``s % num_ranks``. ``stages_per_rank=None`` means 2.

    Raises:
        ValueError: a count below 1, or microbatches that do not come in equal rounds.
    """
    p = check_int("num_ranks", num_ranks, 1)
    m = check_int("num_microbatches", num_microbatches, 1)
    v = check_int("stages_per_rank", 2 if stages_per_rank is None else stages_per_rank, 1)
    per_round = microbatches_per_round(p, m)

    def order(rank: int) -> Steps:
        warmup = min((v - 1) * per_round + 2 * (p - 1 - rank), m * v)
        return take_turns(unroll((warmup, "F"), (m * v - warmup, "F B"), (warmup, "B")), per_round, v)

    return Schedule.from_columns((order(rank).on(range(rank, p * v, p)) for rank in range(p)), "interleaved_1f1b")
