"""``launch=virtual``: every rank in one process, on one device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipezoo.launch.launch import MOST_THREADS, Machine
from pipezoo.launch.mesh import Mesh
from pipezoo.results.units import count
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import P2P
from pipezoo.simulator.timeline import Timeline
from pipezoo.simulator.virtual_clock import MessageBytes, replay
from pipezoo.validators import check_int, check_number


@dataclass(frozen=True)
class Virtual:
    """``launch=virtual``: every rank in one process on one device, its actions placed on a virtual clock.

    Args:
        threads: of the one process; None: 1, whose times are the steadiest.
        latency, bandwidth: what a message between two ranks takes on the virtual clock: seconds, bytes per second.
        start_timeout, step_timeout, first_step_timeout: as of :class:`Processes`.
    """

    threads: int | None = None
    latency: float = 0.0
    bandwidth: float = math.inf
    start_timeout: float = 600.0
    step_timeout: float = 60.0
    first_step_timeout: float = 120.0

    def __post_init__(self) -> None:
        if self.threads is not None:
            check_int("threads", self.threads, 1, most=MOST_THREADS)
        P2P(self.latency, self.bandwidth)
        for name in ("start_timeout", "step_timeout", "first_step_timeout"):
            check_number(name, getattr(self, name), above=True, listed=True)

    @property
    def joins(self) -> bool:
        """It starts one of its own."""
        return False

    @property
    def submits(self) -> bool:
        """It runs here."""
        return False

    @property
    def p2p(self) -> P2P:
        return P2P(self.latency, self.bandwidth)

    @property
    def start_method(self) -> None:
        """The one process is started as it is safe."""

    @property
    def emulate(self) -> bool:
        """Actions take what they take."""
        return False

    def placement(self, schedule: Schedule) -> tuple[int, ...]:
        """All stages run in the one process."""
        return (0,) * schedule.num_stages

    def spread(self, mesh: Mesh) -> Mesh:
        """The one process trains the replicas one after the other."""
        return Mesh()

    def names(self, num_processes: int) -> list[str]:
        return ["the virtual ranks"]

    def num_gpus(self, num_processes: int) -> int:
        return num_processes

    def threads_of(self, num_processes: int, num_cores: int) -> int:
        return self.threads or 1

    def recorded_steps(self, shown: int, steps: int) -> int:
        """All: their times are those of the virtual clock."""
        return steps

    def timelines(self, real: list[Timeline], schedule: Schedule, message_bytes: MessageBytes) -> list[Timeline]:
        """What the ranks would have run, had each had a device of its own."""
        return [replay(schedule, timeline, self.p2p, message_bytes) for timeline in real]

    def step_seconds(self, wall: Sequence[float], measured: Sequence[Timeline]) -> list[float]:
        """On the virtual clock; the first step also warms up."""
        seconds = [timeline.makespan for timeline in measured]
        return seconds[1:] or seconds

    def describe(self, machine: Machine) -> str:
        """``4 virtual ranks in one process on the CPU, threads=1 each on 2 cores``"""
        device = "the GPU" if machine.device == "cuda" else "the CPU"
        threads = f"threads={machine.threads} each on {count(machine.num_cores, 'core')}"
        return f"{count(machine.num_ranks, 'virtual rank')} in one process on {device}, {threads}"
