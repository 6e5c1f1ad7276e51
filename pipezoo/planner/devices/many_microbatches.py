"""A step of many microbatches from steps of few: once a pipeline is full, every round is like the one before.

    rank 0   |fill|round|round|round| ... |round|drain|          a round: as many microbatches as there are ranks

    step(m) = step(m0) + (m - m0) / p  (step(m0 + p) - step(m0)),      m0 = m mod p + some rounds

The rounds are enough when two of them take the same, and no less than the busiest rank computes in one. Until then
there are twice as many; where that is all of the step, all of it is played. Memory follows the same line.
tests/planner/devices/test_many_microbatches.py holds it against the simulator.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.cost_entries import Floats
from pipezoo.simulator.memory import peak_memory
from pipezoo.simulator.simulate import simulate

ROUNDS = 3  # that are played at least
ALIKE = 1e-6  # a share by which two rounds may differ


def step_and_peak(
    schedule_of: Callable[[int], Schedule], cost: Cost, p: int, num_microbatches: int
) -> tuple[float, Floats]:
    """The step, and ``[num_ranks]`` the most that each rank keeps for its backwards.

    Args:
        p: ranks of the pipeline.
        schedule_of: the schedule of so many microbatches; raises ValueError for a number that it does not have.
    """
    rounds = ROUNDS
    while (first := num_microbatches % p + rounds * p) + 2 * p < num_microbatches:
        played = [_play(schedule_of(first + more * p), cost) for more in range(3)]
        steps = [step for step, _ in played]
        one, two = steps[1] - steps[0], steps[2] - steps[1]
        least = p * _busiest(schedule_of(first), cost)
        if abs(two - one) <= ALIKE * two and two >= least * (1 - ALIKE):
            left = (num_microbatches - first) / p - 2
            return steps[2] + left * two, played[2][1] + left * (played[2][1] - played[1][1])
        rounds *= 2
    return _play(schedule_of(num_microbatches), cost)


def _play(schedule: Schedule, cost: Cost) -> tuple[float, Floats]:
    return simulate(schedule, cost).step, peak_memory(schedule, cost)


def _busiest(schedule: Schedule, cost: Cost) -> float:
    """What the busiest rank computes for one microbatch, its backwards whole or split, whichever is shorter."""
    work = cost.F + np.fmin(cost.B, cost.I + cost.W)
    return float(np.bincount(schedule.stage_to_rank, weights=work).max())
