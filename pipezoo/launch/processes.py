"""``launch=processes``: one process a rank on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipezoo.launch.launch import MOST_THREADS, Machine
from pipezoo.launch.mesh import Mesh
from pipezoo.results.units import count
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.timeline import Timeline
from pipezoo.simulator.virtual_clock import MessageBytes
from pipezoo.validators import check_bool, check_int, check_number, check_word

_METHODS = ("fork", "spawn")
COSTED_STEPS = 8  # so many of the last steps are recorded for the costs of the stages, however few are shown


@dataclass(frozen=True)
class Processes:
    """``launch=processes``: one process a rank on this machine.

    Args:
        threads: of each rank; None: the cores dealt evenly to the ranks, at least 1.
        start_method: ``fork`` or ``spawn``; None: fork where it is safe.
        start_timeout: seconds for all that is done before the first process starts.
        step_timeout: seconds without progress after which a run is given up.
        first_step_timeout: the same until the first step is done.
        emulate: whether an action takes as long as the experiment's cost says, whatever it computes.
    """

    threads: int | None = None
    start_method: str | None = None
    start_timeout: float = 600.0
    step_timeout: float = 60.0
    first_step_timeout: float = 120.0
    emulate: bool = False

    def __post_init__(self) -> None:
        check_bool("emulate", self.emulate)
        if self.threads is not None:
            check_int("threads", self.threads, 1, most=MOST_THREADS)
        if self.start_method is not None:
            check_word("start_method", self.start_method, _METHODS, "method")
        for name in ("start_timeout", "step_timeout", "first_step_timeout"):
            check_number(name, getattr(self, name), above=True, listed=True)

    @property
    def joins(self) -> bool:
        """It starts its own."""
        return False

    @property
    def submits(self) -> bool:
        """It runs here."""
        return False

    @property
    def p2p(self) -> None:
        """Messages are real."""

    def placement(self, schedule: Schedule) -> tuple[int, ...]:
        """A stage runs in the process of its rank."""
        return schedule.stage_to_rank

    def spread(self, mesh: Mesh) -> Mesh:
        """Each replica has processes of its own."""
        return mesh

    def names(self, num_processes: int) -> list[str]:
        return [f"rank {rank}" for rank in range(num_processes)]

    def num_gpus(self, num_processes: int) -> int:
        return num_processes

    def threads_of(self, num_processes: int, num_cores: int) -> int:
        return self.threads or max(1, num_cores // num_processes)

    def recorded_steps(self, shown: int, steps: int) -> int:
        """Those that are shown, and enough of them for the costs; not the first, which warms up."""
        return max(shown, min(COSTED_STEPS, steps - 1))

    def timelines(self, real: list[Timeline], schedule: Schedule, message_bytes: MessageBytes) -> list[Timeline]:
        return real

    def step_seconds(self, wall: Sequence[float], measured: Sequence[Timeline]) -> list[float]:
        return list(wall)

    def describe(self, machine: Machine) -> str:
        """``2 processes over gloo, threads=1 each on 2 cores``"""
        on_gpus = machine.device == "cuda"
        processes = (
            f"{count(machine.num_processes, 'process')} over {'nccl, a GPU each' if on_gpus else machine.transport}"
        )
        if machine.emulated:
            return f"{processes}, as slow as {machine.emulated} says"
        crowd = "" if on_gpus or machine.num_processes <= machine.num_cores else ", which they share"
        return f"{processes}, threads={machine.threads} each on {count(machine.num_cores, 'core')}{crowd}"
