"""``launch=slurm``: this very command as a job of Slurm, whose tasks are the ranks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipezoo.errors import ArgumentError
from pipezoo.found_world import found_world
from pipezoo.launch.launch import Machine
from pipezoo.launch.processes import Processes
from pipezoo.launch.world import World
from pipezoo.validators import check_bool, check_int

SUBMITTED = "PIPEZOO_SUBMITTED"  # variable of the environment: the number of the job that this process is the run of
MOST_MINUTES = 60 * 24 * 366
OPTION = re.compile(r"--([a-z][a-z0-9-]*)(?:=(\S.*))?")
OURS = {
    name.replace("_", "-"): name for name in ("nodes", "cpus_per_task", "gpus_per_node", "partition", "time", "requeue")
}
OURS |= {"ntasks-per-node": "tasks_per_node", "ntasks": "tasks_per_node"}
FIXED = ("no-requeue", "output", "error", "open-mode", "chdir", "signal", "wait", "job-name", "wrap", "array")


@dataclass(frozen=True)
class Slurm(World):
    """``launch=slurm``: this very command as a job of Slurm. In the job it is ``launch=world``.

    Args:
        nodes: machines of the job.
        tasks_per_node: processes that Slurm starts on each; None: one on a single node, which forks the ranks, else
            the ranks dealt evenly to the nodes, as with requeue.
        cpus_per_task, gpus_per_node: cores of a process, GPUs of a machine; None: one for each rank.
        partition: None: the cluster's own choice.
        time: minutes after which Slurm ends the job.
        setup: lines of shell before the run, on its first machine.
        options: other options of sbatch, as it takes them.
        requeue: whether Slurm may start the job again, after a machine failed or somebody asked; it goes on then.
        wait: whether the command stays until the job has ended, prints what it prints, and has its exit code.
        port, interface, threads, start_timeout, step_timeout, first_step_timeout, emulate: as of :class:`World`.
    """

    nodes: int = 1
    tasks_per_node: int | None = None
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    partition: str | None = None
    time: int = 60
    setup: Sequence[str] = ()
    options: Sequence[str] = ()
    requeue: bool = False
    wait: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("nodes", self.nodes, 1, listed=True)
        for name in ("tasks_per_node", "cpus_per_task", "gpus_per_node"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), 1, listed=True)
        check_int("time", self.time, 1, MOST_MINUTES)
        for name in ("requeue", "wait"):
            check_bool(name, getattr(self, name))
        if self.partition is not None and not _is_line(self.partition):
            raise ArgumentError("partition", self.partition, "must be the name of a partition, or null")
        if isinstance(self.setup, str) or not all(_is_line(line) for line in self.setup):
            raise ArgumentError("setup", self.setup, "must be lines of shell", "launch.setup=['module load x']")
        self._check_options()

    def _check_options(self) -> None:
        valid = "launch.options=['--account=me','--exclusive']"
        if isinstance(self.options, str) or not all(_is_line(option) for option in self.options):
            raise ArgumentError("options", self.options, "must be options of sbatch", valid)
        for option in self.options:
            if not (found := OPTION.fullmatch(option)):
                raise ArgumentError("options", option, "is no option of sbatch", valid)
            if found[1] in OURS:
                raise ArgumentError("options", option, "is a key of its own", f"launch.{OURS[found[1]]}=")
            if found[1] in FIXED:
                raise ArgumentError("options", option, "is what pipezoo says itself", valid)

    def sbatch_options(self) -> dict[str, str | bool]:
        """The other options by name; True for one without a value."""
        found = {match[1]: match[2] for match in map(OPTION.fullmatch, self.options) if match}
        return {name: True if value is None else value for name, value in found.items()}

    @property
    def joins(self) -> bool:
        """A job of one task is in no world: it forks the ranks."""
        return found_world(os.environ) is not None

    @property
    def submits(self) -> bool:
        """Outside of its job."""
        return not self.joins and not in_its_job()

    def num_gpus(self, num_processes: int) -> int:
        return super().num_gpus(num_processes) if self.joins else num_processes

    def describe(self, machine: Machine) -> str:
        """As of the launch that this one is in its job."""
        return super().describe(machine) if self.joins else Processes.describe(self, machine)

    def tasks_for(self, num_processes: int) -> int:
        """The processes that Slurm starts on each node for as many of the pipeline. Raises ArgumentError."""
        if self.tasks_per_node is None and self.nodes == 1:
            return num_processes if self.requeue else 1
        if self.tasks_per_node is None and num_processes % self.nodes == 0:
            return num_processes // self.nodes
        tasks = (self.tasks_per_node or 0) * self.nodes
        if tasks == num_processes or (tasks == 1 and not self.requeue):
            return self.tasks_per_node or 1
        if self.tasks_per_node is None:
            divisors = [nodes for nodes in range(1, num_processes + 1) if num_processes % nodes == 0]
            raise ArgumentError("nodes", self.nodes, f"does not divide the {num_processes} processes", divisors)
        on = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        why = f"on {on} makes {tasks} processes, and the pipeline has {num_processes}"
        raise ArgumentError("tasks_per_node", self.tasks_per_node, why, "null, or as many as a node has ranks")


def in_its_job(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is what a job of ``launch=slurm`` runs."""
    return SUBMITTED in environ and environ[SUBMITTED] == environ.get("SLURM_JOB_ID")


def _is_line(text: object) -> bool:
    return isinstance(text, str) and bool(text.strip()) and text.isprintable()
