"""``launch=virtual``: every rank in one process, on one device."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipezoo.simulator.cost import P2P
from pipezoo.validators import check_int, check_number


@dataclass(frozen=True)
class Virtual:
    """``launch=virtual``: every rank in one process on one device, its actions placed on a virtual clock.

    Args:
        threads: of the one process; None: 1, whose times are the steadiest.
        latency, bandwidth: what a message between two ranks takes on the virtual clock: seconds, bytes per second.
        step_timeout, first_step_timeout: as of :class:`Processes`.
    """

    threads: int | None = None
    latency: float = 0.0
    bandwidth: float = math.inf
    step_timeout: float = 60.0
    first_step_timeout: float = 120.0

    def __post_init__(self) -> None:
        if self.threads is not None:
            check_int("threads", self.threads, 1)
        P2P(self.latency, self.bandwidth)
        for name in ("step_timeout", "first_step_timeout"):
            check_number(name, getattr(self, name), above=True, listed=True)

    @property
    def p2p(self) -> P2P:
        return P2P(self.latency, self.bandwidth)
