"""Weight gradients that gain nothing by coming later, merged with their input gradients: a full backward is cheaper.

given      rank 1    F0 F1 I0 W0 F2 I1 W1 I2 W2         I + W takes longer than B on real machines
joined     rank 1    F0 F1 B0--- F2 B1--- I2 W2         the last ones stay split: their gradients are waited for

A *cut* is how many microbatches of a rank are whole, from the first on. One cut for all ranks is tried first, and the
best of these is changed rank by rank as long as that helps. Joining needs no more memory and no other message.
"""

from __future__ import annotations

import time

import numpy as np

from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import simulate

CUTS = 9  # how many are tried for all ranks together, evenly from none to all
ROUNDS = 3  # over the ranks
SHARE = 0.2  # of the time of a search that is kept for joining


def merge_backwards(schedule: Schedule, cost: Cost, deadline: float = float("inf")) -> Schedule:
    """The schedule with some backwards whole, where these costs make it shorter; else itself.

    Args:
        deadline: moment of ``time.monotonic`` at which no further cut is tried.

    Raises:
        ValueError: the costs are of another number of stages.
    """
    cheaper = _cheaper(cost)
    if not cheaper.any() or not (schedule.op == Op.I).any() or schedule.overlap is not None:
        return schedule
    m, num_ranks = schedule.num_microbatches, schedule.num_ranks
    best, least, cuts = schedule, _makespan(schedule, cost), [0] * num_ranks
    steps = np.unique(np.linspace(0, m, CUTS).astype(int)).tolist()
    tries = [[cut] * num_ranks for cut in [*steps[1:], *range(max(1, m - num_ranks), m)]]
    for _ in range(1 + ROUNDS):
        before = least
        for trial in tries:
            if time.monotonic() >= deadline:
                return best
            joined = _merged(schedule, cheaper, trial)
            if (made := _makespan(joined, cost)) < least * (1 - 1e-9):
                best, least, cuts = joined, made, trial
        if least == before and cuts != [0] * num_ranks:
            break
        tries = [_changed(cuts, rank, cut, m) for rank in range(num_ranks) for cut in (-2, -1, 1, 2, m)]
    return best


def time_before_merging(cost: Cost, deadline: float) -> float:
    """When a search has to end for halves to be joined until ``deadline``; both of ``time.monotonic``."""
    left = deadline - time.monotonic()
    return deadline - SHARE * left if 0 < left < float("inf") and _cheaper(cost).any() else deadline


def _cheaper(cost: Cost) -> np.ndarray:
    """``[num_stages]``: whether a full backward takes less than its halves."""
    halves = cost.seconds[:, Op.I] + cost.seconds[:, Op.W]
    return np.asarray(cost.seconds[:, Op.B] < halves * (1 - 1e-9))


def _makespan(schedule: Schedule, cost: Cost) -> float:
    return simulate(schedule, cost).makespan


def _changed(cuts: list[int], rank: int, by: int, most: int) -> list[int]:
    return [min(most, max(0, cut + by)) if at == rank else cut for at, cut in enumerate(cuts)]


def _merged(schedule: Schedule, cheaper: np.ndarray, cuts: list[int]) -> Schedule:
    """Each input gradient before its rank's cut becomes a full backward, and its weight gradient goes."""
    whole = cheaper[schedule.stage] & (schedule.microbatch < np.array(cuts)[schedule.rank])
    op = np.where(whole & (schedule.op == Op.I), Op.B, schedule.op).astype(schedule.op.dtype)
    stays = ~(whole & (schedule.op == Op.W))
    offsets = np.concatenate([[0], np.cumsum(stays)])[schedule.offsets]
    return Schedule(op[stays], schedule.stage[stays], schedule.microbatch[stays], offsets, None, schedule.name)
