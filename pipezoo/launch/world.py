"""``launch=world``: the processes are there already; torchrun, srun or an MPI starter made them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pipezoo.found_world import SRUN, found_world
from pipezoo.launch.launch import Machine
from pipezoo.launch.processes import Processes
from pipezoo.results.units import count
from pipezoo.validators import check_int

MOST_PORT = 65534  # and the next one, where rank 0 needs two


@dataclass(frozen=True)
class World(Processes):
    """``launch=world``: one rank in each process of the world that this one finds itself in.

    Args:
        port: of the lines to rank 0, where its machine is reached from others; None: a free one, told to the others.
        interface: of the network that the machines reach each other by; None: the one that leads to the others.
        threads, start_timeout, step_timeout, first_step_timeout: as of :class:`Processes`.
    """

    port: int | None = None
    interface: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.port is not None:
            check_int("port", self.port, 1, most=MOST_PORT)

    @property
    def joins(self) -> bool:
        """Those of the world."""
        return True

    def num_gpus(self, num_processes: int) -> int:
        """One here, which it looks for itself."""
        return 1

    def threads_of(self, num_processes: int, num_cores: int) -> int:
        """The cores of this machine dealt to the processes of this machine, or those that it was given alone."""
        found = found_world(os.environ)
        here = (found.local_size if found is not None else None) or num_processes
        if found is not None and found.starter == SRUN and os.environ.get("SLURM_CPUS_PER_TASK") == str(num_cores):
            here = 1
        return self.threads or max(1, num_cores // here)

    def describe(self, machine: Machine) -> str:
        """``4 processes of torchrun's world over gloo, threads=1 each on 2 cores``"""
        found = found_world(os.environ)
        of = count(machine.num_processes, "process")
        return super().describe(machine).replace(of, f"{of} of {found.starter}'s world", 1) if found else of
