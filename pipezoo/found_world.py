"""The world that a process finds itself in: what torchrun, srun or an MPI starter says in the environment.

    torchrun           RANK  WORLD_SIZE  MASTER_ADDR  MASTER_PORT           LOCAL_RANK  LOCAL_WORLD_SIZE
    srun               SLURM_PROCID  SLURM_STEP_ID  SLURM_NTASKS            SLURM_LOCALID
    mpirun (Open MPI)  OMPI_COMM_WORLD_RANK  OMPI_COMM_WORLD_SIZE           OMPI_COMM_WORLD_LOCAL_RANK
    mpirun (others)    PMI_RANK  PMI_SIZE                                   MPI_LOCALRANKID

The first whole set counts: torchrun inside of srun is torchrun's world. ``SLURM_NTASKS`` without ``SLURM_STEP_ID`` is a
script of sbatch, which runs once. A world of one process is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipezoo.errors import ConfigError

TORCHRUN, SRUN, MPI = "torchrun", "srun", "mpirun"
FIRST_PORT, NUM_PORTS = 15000, 16000  # below those that a system gives away by itself
MOST_PROCESSES = 1 << 20


@dataclass(frozen=True)
class FoundWorld:
    """One process of a world.

    Args:
        rank, size: its place among all processes, and how many those are.
        starter: ``torchrun``, ``srun`` or ``mpirun``.
        local_rank, local_size: the same on its machine; None where the starter does not say.
        address, port: where rank 0, or the starter, has a store of keys; None: not said.
        has_store: the starter keeps that store, so that rank 0 opens none.
        attempt: how often the world was started before.
        job: what tells it from other worlds on the same machines; "" where nothing does.
        nodes: the machines, as srun lists them.
        num_nodes: how many those are; None: not said.
        node: what the starter calls this machine; "": what it calls itself.
    """

    rank: int
    size: int
    starter: str
    local_rank: int | None = None
    local_size: int | None = None
    address: str | None = None
    port: int | None = None
    has_store: bool = False
    attempt: int = 0
    job: str = ""
    nodes: str = ""
    num_nodes: int | None = None
    node: str = ""

    @property
    def on_one_machine(self) -> bool:
        """Whether the starter says so."""
        return self.num_nodes == 1 or self.local_size == self.size


class HalfAWorldError(ConfigError):
    """Some of the variables of a world are set, and others are not, or they say what cannot be.

    ``speaks``: whether this process is the one that says so.
    """

    def __init__(self, message: str, speaks: bool) -> None:
        super().__init__(message)
        self.speaks = speaks


def found_world(environ: Mapping[str, str]) -> FoundWorld | None:
    """The world that ``environ`` describes; None where it describes none, or one of a single process.

    Raises:
        HalfAWorldError: it describes half of one.
    """
    halves = []
    for find in (_of_torchrun, _of_srun, _of_open_mpi, _of_pmi):
        try:
            world = find(environ)
        except HalfAWorldError as half:
            halves.append(half)
            continue
        if world is not None and world.size == 1:
            _check_alone(world, environ)
            return None
        if world is not None:
            return world
    if halves:
        raise halves[0]
    return None


def port_of(world: FoundWorld) -> int:
    """The port of rank 0's store where nobody says one: two worlds on one machine have different ones, mostly."""
    numbers = [int(part) for part in world.job.split(".") if part.isdigit()] or [0]
    return FIRST_PORT + (numbers[0] * 101 + sum(numbers[1:])) % NUM_PORTS


def _of_torchrun(environ: Mapping[str, str]) -> FoundWorld | None:
    if not _begun(environ, ("RANK", "WORLD_SIZE")):
        return None
    size = _count(environ, "WORLD_SIZE", ("RANK",), "torchrun sets both")
    rank = _place(environ, "RANK", size, "torchrun sets both")
    if size > 1:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            _text(environ, name, "RANK and WORLD_SIZE are, and a world needs both")
    return FoundWorld(
        rank,
        size,
        TORCHRUN,
        _optional(environ, "LOCAL_RANK"),
        _optional(environ, "LOCAL_WORLD_SIZE"),
        environ.get("MASTER_ADDR"),
        _optional(environ, "MASTER_PORT"),
        has_store=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=_optional(environ, "TORCHELASTIC_RESTART_COUNT") or 0,
        job=environ.get("TORCHELASTIC_RUN_ID", ""),
    )


def _of_srun(environ: Mapping[str, str]) -> FoundWorld | None:
    counts = [name for name in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS") if name in environ]
    if "SLURM_STEP_ID" not in environ or not counts:
        return None
    size = _count(environ, counts[0], (), "srun sets it")
    if size == 1:
        return FoundWorld(0, 1, SRUN)
    return FoundWorld(
        _place(environ, "SLURM_PROCID", size, "srun sets it beside SLURM_STEP_ID", counts[0]),
        size,
        SRUN,
        _optional(environ, "SLURM_LOCALID"),
        _tasks_here(environ),
        environ.get("MASTER_ADDR"),
        _optional(environ, "MASTER_PORT"),
        attempt=_optional(environ, "SLURM_RESTART_COUNT") or 0,
        job=f"{environ.get('SLURM_JOB_ID', '0')}.{environ['SLURM_STEP_ID']}",
        nodes=environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", ""),
        num_nodes=_optional(environ, "SLURM_STEP_NUM_NODES"),
        node=environ.get("SLURMD_NODENAME", ""),
    )


def _check_alone(world: FoundWorld, environ: Mapping[str, str]) -> None:
    """A torchrun in each task of srun that knows nothing of the others makes as many worlds of one."""
    outside = _of_srun(environ) if world.starter == TORCHRUN else None
    if outside is not None and outside.size > 1:
        why = f"torchrun made a world of one in each of srun's {outside.size} tasks, which would all train the whole"
        valid = "torchrun with --nnodes and --rdzv-endpoint, or srun without torchrun"
        raise HalfAWorldError(f"WORLD_SIZE=1: {why}; valid: {valid}", outside.rank == 0)


def _tasks_here(environ: Mapping[str, str]) -> int | None:
    """Of ``SLURM_STEP_TASKS_PER_NODE=3(x2),1``, the number of this node."""
    text = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE", "")
    counts: list[int] = []
    for part in text.split(","):
        number, _, times = part.rstrip(")").partition("(x")
        if not number.isdigit() or not (times or "1").isdigit() or len(times) > 6:
            return None
        counts += [int(number)] * int(times or "1")
    node = _optional(environ, "SLURM_NODEID")
    return counts[node] if node is not None and node < len(counts) else None


def _of_open_mpi(environ: Mapping[str, str]) -> FoundWorld | None:
    return _of_mpi(
        environ,
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    )


def _of_pmi(environ: Mapping[str, str]) -> FoundWorld | None:
    return _of_mpi(environ, "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")


def _of_mpi(environ: Mapping[str, str], rank: str, size: str, local_rank: str, local_size: str) -> FoundWorld | None:
    """MPI's starters keep no store, and say no address; on one machine none is needed."""
    if not _begun(environ, (rank, size)):
        return None
    count = _count(environ, size, (rank,), "mpirun sets both")
    place = _place(environ, rank, count, "mpirun sets both", size)
    address, port, here = environ.get("MASTER_ADDR"), _optional(environ, "MASTER_PORT"), _optional(environ, local_size)
    if count > 1 and here != count and address is None:
        raise _half(environ, "MASTER_ADDR", f"{rank} is, and mpirun tells no process where rank 0 is", (rank,))
    job = environ.get("PMIX_NAMESPACE") or environ.get("OMPI_MCA_orte_ess_jobid", "")
    digits = "".join(letter for letter in job if letter.isdigit())[-9:]
    return FoundWorld(place, count, MPI, _optional(environ, local_rank), here, address, port, job=digits)


def _begun(environ: Mapping[str, str], names: tuple[str, ...]) -> bool:
    return any(name in environ for name in names)


def _text(environ: Mapping[str, str], name: str, why: str) -> str:
    if not environ.get(name):
        raise _half(environ, name, why, ())
    return environ[name]


def _count(environ: Mapping[str, str], name: str, beside: tuple[str, ...], why: str) -> int:
    text = environ.get(name)
    if text is None:
        raise _half(environ, name, f"{' and '.join(beside)} is, and {why}", beside)
    if not text.isdigit() or not 1 <= int(text[:9]) <= MOST_PROCESSES:
        raise HalfAWorldError(f"{name}={text}: must be a number of processes, >= 1", _speaks(environ))
    return int(text)


def _place(environ: Mapping[str, str], name: str, size: int, why: str, size_name: str = "WORLD_SIZE") -> int:
    text = environ.get(name)
    if text is None:
        raise _half(environ, name, f"{size_name} is, and {why}", (size_name,))
    if not text.isdigit() or int(text[:9]) >= size:
        valid = f"0..{size - 1}"
        raise HalfAWorldError(f"{name}={text}: is no place in a world of {size_name}={size}; valid: {valid}", True)
    return int(text)


def _half(environ: Mapping[str, str], missing: str, why: str, beside: tuple[str, ...]) -> HalfAWorldError:
    unset = f"unset {', '.join(beside)}" if beside else "unset RANK and WORLD_SIZE"
    valid = f"valid: start it by torchrun, srun or mpirun, or {unset} to run without a world"
    return HalfAWorldError(f"{missing}: is not set; {why}; {valid}", _speaks(environ))


def _speaks(environ: Mapping[str, str]) -> bool:
    """Whether this process is the first one, as far as can be seen."""
    for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "LOCAL_RANK", "SLURM_LOCALID"):
        if environ.get(name, "").isdigit():
            return int(environ[name]) == 0
    return True


def _optional(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    return int(text) if text.isdigit() and len(text) < 10 else None
