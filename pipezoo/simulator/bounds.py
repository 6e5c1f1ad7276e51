"""What no order of the same work can beat: a lower bound on the makespan, whatever the memory.

Any rank must wait for the first input to reach it, do all of its work, and once its last backward is done the gradient
has still to travel down to stage 0:

    rank r   . head .|######## its F and I, at least ########|. tail .        head: F of the stages below, and messages
    rank r   . head .|################ all of its work ################|      tail: I of stages below, messages, one W

    bound = the longest of these over all ranks

With equal stages this is (p-1)(TF/v + Tc) + m(TF+TB+TW), met by ZB-2p (v=1) and ZB-V (v=2) at unit cost; where m is
small the first line is the longer one. Backwards count as whole or split, whichever is shorter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipezoo.schedule.action import Op
from pipezoo.simulator.cost import Cost


def lower_bound(cost: Cost, stage_to_rank: Sequence[int], num_microbatches: int) -> float:
    """The least makespan, in the unit of the costs, of any schedule with these stages on these ranks."""
    ranks, p2p_seconds = np.asarray(stage_to_rank), cost.p2p_seconds(stage_to_rank)
    forward, whole = cost.seconds[:, Op.F], cost.seconds[:, Op.B]
    halves = cost.seconds[:, Op.I] + cost.seconds[:, Op.W]
    early = np.fmin(whole, cost.seconds[:, Op.I])  # until the gradient goes on to the stage below
    backward = np.fmin(whole, halves)
    head = np.concatenate([[0.0], np.cumsum(forward[:-1] + p2p_seconds)])
    tail = np.concatenate([[0.0], np.cumsum(early[:-1] + p2p_seconds)]) + max(0.0, backward[0] - early[0])
    if not cost.overlap:  # the last p2p message of the head, and the first of the tail, are part of the rank's own work
        head[1:], tail[1:] = head[1:] - p2p_seconds, tail[1:] - p2p_seconds
    moved = np.zeros(len(ranks))
    if not cost.overlap:
        moved[1:], moved[:-1] = moved[1:] + 2 * p2p_seconds, moved[:-1] + 2 * p2p_seconds
    longest = np.fmax(whole, halves)

    bound = 0.0
    for rank in range(int(ranks.max()) + 1):
        own = ranks == rank
        hidden = cost.overlap_gain * min(forward[own].sum(), longest[own].sum())
        busy = num_microbatches * float((forward + moved)[own].sum() - hidden)
        first, last = float(head[own].min()), float(tail[own].min())
        until_weights = first + busy + num_microbatches * float(early[own].sum()) + last
        bound = max(bound, until_weights, first + busy + num_microbatches * float(backward[own].sum()))
    return bound
