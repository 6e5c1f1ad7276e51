"""``cost=measured``: how the costs of a model's stages are to be measured here. The work is done by a task."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipezoo.errors import ArgumentError
from pipezoo.simulator.cost import P2P
from pipezoo.validators import check_int

WARM_UP = 2  # steps that do not count


@dataclass(frozen=True)
class Measuring:
    """A run of ``num_stages`` stages, each timed alone, and messages between two processes.

    Args:
        steps: training steps that count, after the warm-up; medians are taken over their microbatches.
        microbatches: of a step; more give steadier medians.
        latency, bandwidth: what a message is assumed to take; None: that is measured, too.
    """

    num_stages: int
    steps: int
    microbatches: int
    latency: float | None
    bandwidth: float | None

    @property
    def all_steps(self) -> int:
        return WARM_UP + self.steps

    @property
    def asks_for_p2p(self) -> bool:
        """Whether messages are to be measured: not where both numbers are given, nor where there is nobody to tell."""
        return self.num_stages > 1 and (self.latency is None or self.bandwidth is None)

    def p2p(self, found: P2P) -> P2P:
        """What is given, and where nothing is, what was ``found``."""
        return P2P(
            found.latency if self.latency is None else self.latency,
            found.bandwidth if self.bandwidth is None else self.bandwidth,
        )


def measured(
    num_stages: int | None,
    stages_per_rank: int = 1,
    *,
    steps: int = 3,
    microbatches: int = 8,
    latency: float | None = None,
    bandwidth: float | None = None,
) -> Measuring:
    """What is to be measured. Raises ValueError for a number out of range, or where nothing says how many stages."""
    if num_stages is None:
        raise ArgumentError("num_stages", None, "cost=measured needs to know how many stages; give stages= or ranks=")
    check_int("steps", steps, 1)
    check_int("microbatches", microbatches, 2)
    P2P(0.0 if latency is None else latency, math.inf if bandwidth is None else bandwidth)
    return Measuring(num_stages, steps, microbatches, latency, bandwidth)
