"""What a launch is: how the ranks of a pipeline become processes, and what the times of those processes mean.

A new launch is one file, with a frozen dataclass of these members, and one YAML file in ``conf/launch``. It needs no
base class, and nothing else names it. Launches are part of a config: they import no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipezoo.launch.mesh import Mesh
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import P2P
from pipezoo.simulator.timeline import Timeline
from pipezoo.simulator.virtual_clock import MessageBytes

MOST_THREADS = 4096  # of a process


@dataclass(frozen=True)
class Machine:
    """Where a run is launched, for the start-up line.

    Args:
        num_processes: as placed by the launch.
        threads: of each process.
        num_cores: that this process may use.
        device: ``cpu`` or ``cuda``.
        transport: what carries messages between processes, in words.
        emulated: the cost that actions take the time of, as typed (``cost=unit``), or "".
    """

    num_ranks: int
    num_processes: int
    threads: int
    num_cores: int
    device: str
    transport: str = "gloo"
    emulated: str = ""


class Launch(Protocol):
    """How the ranks of a pipeline run."""

    @property
    def start_method(self) -> str | None:
        """``fork`` or ``spawn``; None: fork where it is safe."""

    @property
    def start_timeout(self) -> float:
        """Seconds for all that is done before the first process starts."""

    @property
    def step_timeout(self) -> float:
        """Seconds without progress after which a run is given up."""

    @property
    def first_step_timeout(self) -> float:
        """The same until the first step is done."""

    @property
    def emulate(self) -> bool:
        """Whether an action takes as long as the experiment's cost says, whatever it computes."""

    @property
    def joins(self) -> bool:
        """Whether its processes are those of a world, which somebody else has started."""

    @property
    def submits(self) -> bool:
        """Whether the command is run somewhere else, by a job, and not by this process."""

    @property
    def p2p(self) -> P2P | None:
        """What a message between two ranks is said to take; None: real messages, which are measured."""

    def placement(self, schedule: Schedule) -> tuple[int, ...]:
        """``[num_stages]``: the process that runs each stage; processes are ``0 .. n-1``, and each has a stage."""

    def spread(self, mesh: Mesh) -> Mesh:
        """The mesh of processes: the one that is asked for, or a plain one where each process has all replicas."""

    def names(self, num_processes: int) -> list[str]:
        """What the processes are called in messages."""

    def num_gpus(self, num_processes: int) -> int:
        """The GPUs that the process which builds the pipeline has to see."""

    def threads_of(self, num_processes: int, num_cores: int) -> int:
        """The compute threads of each process."""

    def recorded_steps(self, shown: int, steps: int) -> int:
        """How many of the last of ``steps`` steps are recorded, of which ``shown`` go into the timeline."""

    def timelines(self, real: list[Timeline], schedule: Schedule, message_bytes: MessageBytes) -> list[Timeline]:
        """The measured timelines of the ranks, from those of the processes, a timeline a step.

        Args:
            message_bytes: how large the messages of a microbatch are.
        """

    def step_seconds(self, wall: Sequence[float], measured: Sequence[Timeline]) -> list[float]:
        """The times of the steps that count, from those on the wall's clock and the ranks' timelines."""

    def describe(self, machine: Machine) -> str:
        """What is launched, in the words of the start-up line."""
