"""Rounds: how a rank with several stages (slots) takes turns between them.

g = 2 microbatches a round, v = 3 slots:     F of slot   0 0 1 1 2 2   0 0 1 1 2 2   ...
                                             microbatch  0 1 0 1 0 1   2 3 2 3 2 3   ...
                                             B of slot   2 2 1 1 0 0   2 2 1 1 0 0   ...
"""

from __future__ import annotations

import numpy as np

from pipezoo.schedule.action import Op
from pipezoo.schedule.builders.phases import Steps


def microbatches_per_round(num_ranks: int, num_microbatches: int) -> int:
    """Microbatches are taken in ``num_microbatches // num_ranks`` equal rounds (one, where there are fewer than ranks).

    Raises:
        ValueError: there is no such number; names the nearest counts that have one.
    """
    num_rounds = max(1, num_microbatches // num_ranks)
    if num_microbatches % num_rounds:
        below = num_microbatches - num_microbatches % num_rounds
        above = next(m for m in range(num_microbatches + 1, 2 * num_microbatches) if not m % (m // num_ranks))
        raise ValueError(
            f"num_microbatches={num_microbatches}: {num_ranks} ranks take them in {num_rounds} equal rounds; "
            f"valid: {below}, {above}"
        )
    return num_microbatches // num_rounds


def take_turns(steps: Steps, per_round: int, num_slots: int) -> Steps:
    """Hand the actions of one slot out to ``num_slots``: forwards from the first to the last, backwards in reverse."""
    turn = steps.microbatch
    slot = turn // per_round % num_slots
    return steps._replace(
        slot=np.where(steps.op == Op.F, slot, num_slots - 1 - slot),
        microbatch=turn // (per_round * num_slots) * per_round + turn % per_round,
    )
