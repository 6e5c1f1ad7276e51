"""Interleaved zero bubble: interleaved 1F1B with the backward in two halves; weight halves wait to fill the gaps.

Qi et al., "Zero Bubble Pipeline Parallelism", arXiv:2401.10241, over the stages of arXiv:2104.04473; torch's order

    bubble     (p-1)(TF+TB-TW)/v;  (p-1)/(3mv+p-1) of the makespan at equal costs, in rounds of p microbatches
    memory     the activations of about p microbatches on every rank

    Rank r puts off r weight halves: a later rank gets its first input gradient sooner, and so has r more to spend
    while the pipeline drains.

    p=3, v=1, m=4

    rank 0  F0 F1 F2 .  .  I0 W0 F3 I1 W1 .  I2 W2 .  I3 W3
    rank 1     F0 F1 .  I0 F2 I1 W0 F3 I2 W1 .  I3 W2 W3
    rank 2        F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3
"""

from __future__ import annotations

from pipezoo.arguments import check_int
from pipezoo.phases import Steps, unroll
from pipezoo.rounds import microbatches_per_round, take_turns
from pipezoo.schedule import Schedule


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
        warmup = min((v - 1) * per_round + p - 1 - rank, m * v)
        forwards = m * v - warmup  # those that alternate with input halves
        late = min(rank, m * v)  # weight halves put off to the end
        steps = unroll(
            (warmup, "F"),
            (min(forwards, late), "F I"),
            (max(forwards - late, 0), "F I W"),
            (max(late - forwards, 0), "I"),
            (m * v - max(forwards, late), "I W"),
            (late, "W"),
        )
        return take_turns(steps, per_round, v)

    return Schedule.from_columns((order(rank).on(range(rank, p * v, p)) for rank in range(p)), "interleaved_zero_bubble")
