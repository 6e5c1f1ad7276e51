"""``cost=measured``: how the costs of a model's stages are to be measured here. The work is done by a task."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipezoo.arguments import check_int
from pipezoo.cost import Hop

WARM_UP = 2  # steps that do not count


@dataclass(frozen=True)
class Measuring:
    """A run of ``num_stages`` stages, each timed alone.

    Args:
        steps: training steps that count, after the warm-up; medians are taken over their microbatches.
        microbatches: of a step; more give steadier medians.
        hop: what a message is assumed to take.
    """

    num_stages: int
    steps: int
    microbatches: int
    hop: Hop

    @property
    def all_steps(self) -> int:
        return WARM_UP + self.steps


def measured(
    num_stages: int | None,
    stages_per_rank: int = 1,
    *,
    steps: int = 3,
    microbatches: int = 8,
    latency: float = 0.0,
    bandwidth: float = math.inf,
) -> Measuring:
    """What is to be measured. Raises ValueError for a number out of range, or where nothing says how many stages."""
    if num_stages is None:
        raise ValueError("num_stages=None: cost=measured needs to know how many stages; give stages= or ranks=")
    check_int("steps", steps, 1)
    check_int("microbatches", microbatches, 2)
    return Measuring(num_stages, steps, microbatches, Hop(latency, bandwidth))
