"""Which world a process is in, by its environment: a table."""

from __future__ import annotations

import pytest

from pipezoo.found_world import FoundWorld, HalfAWorldError, found_world, port_of

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "nodea",
    "MASTER_PORT": "29500", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "1",
    "TORCHELASTIC_RUN_ID": "t1",
}  # fmt: skip
SRUN = {
    "SLURM_PROCID": "2", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "2", "SLURM_NODEID": "0",
    "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_TASKS_PER_NODE": "3,1", "SLURM_JOB_ID": "17", "SLURMD_NODENAME": "n1",
}  # fmt: skip
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"
}  # fmt: skip

FOUND = {
    "nothing": ({}, None),
    "torchrun": (
        TORCHRUN,
        FoundWorld(3, 4, "torchrun", 1, 2, "nodea", 29500, has_store=True, attempt=1, job="t1"),
    ),
    "torchrun of one process": (TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}, None),
    "variables typed by hand": (
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"},
        FoundWorld(0, 2, "torchrun", address="127.0.0.1", port=29500),
    ),
    "srun": (SRUN, FoundWorld(2, 4, "srun", 2, 3, job="17.0", nodes="n[1-2]", node="n1")),
    "srun of one task": (SRUN | {"SLURM_NTASKS": "1"}, None),
    "srun, a job that was requeued": (
        SRUN | {"SLURM_RESTART_COUNT": "2"},
        FoundWorld(2, 4, "srun", 2, 3, attempt=2, job="17.0", nodes="n[1-2]", node="n1"),
    ),
    "a step of fewer tasks than its job": (SRUN | {"SLURM_STEP_NUM_TASKS": "1"}, None),
    "sbatch without srun": ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_ID": "17"}, None),
    "salloc": ({"SLURM_NTASKS": "2", "SLURM_JOB_ID": "17"}, None),
    "submitit's job of a sweep": (SRUN | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
    "torchrun inside of srun": (
        SRUN | TORCHRUN,
        FoundWorld(3, 4, "torchrun", 1, 2, "nodea", 29500, has_store=True, attempt=1, job="t1"),
    ),
    "srun below a script that exported a size": (
        SRUN | {"WORLD_SIZE": "4", "MASTER_ADDR": "n1", "MASTER_PORT": "29500"},
        FoundWorld(2, 4, "srun", 2, 3, "n1", 29500, job="17.0", nodes="n[1-2]", node="n1"),
    ),
    "Open MPI on one machine": (OPEN_MPI, FoundWorld(1, 2, "mpirun", 1, 2)),
    "PMI, told where rank 0 is": (
        {"PMI_RANK": "1", "PMI_SIZE": "2", "MASTER_ADDR": "nodea", "MASTER_PORT": "29500"},
        FoundWorld(1, 2, "mpirun", address="nodea", port=29500),
    ),
}
HALVES = {
    "RANK": ({"WORLD_SIZE": "4", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK: is not set"),
    "WORLD_SIZE": ({"RANK": "0"}, "WORLD_SIZE: is not set"),
    "MASTER_ADDR": ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1"}, "MASTER_ADDR: is not set"),
    "MASTER_PORT": ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "MASTER_PORT: is not set"),
    "SLURM_PROCID": ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"}, "SLURM_PROCID: is not set"),
    "OMPI_COMM_WORLD_SIZE": ({"OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE: is not set"),
    "PMI_RANK": ({"PMI_SIZE": "2"}, "PMI_RANK: is not set"),
    "an address for mpirun": ({"PMI_RANK": "0", "PMI_SIZE": "2"}, "MASTER_ADDR: is not set"),
    "a rank beyond the world": (TORCHRUN | {"RANK": "4"}, "RANK=4: is no place in a world of WORLD_SIZE=4"),
    "a size that is a word": (
        TORCHRUN | {"RANK": "0", "WORLD_SIZE": "four"},
        "WORLD_SIZE=four: must be a number of processes",
    ),
    "a torchrun of one in each task of srun": (
        SRUN | {"SLURM_PROCID": "0", "RANK": "0", "WORLD_SIZE": "1"},
        "WORLD_SIZE=1: torchrun made a world of one in each of srun's 4 tasks",
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_world_is_found_by_its_variables(name: str) -> None:
    environ, expected = FOUND[name]
    assert found_world(environ) == expected


@pytest.mark.parametrize("name", HALVES)
def test_half_a_world_names_what_is_missing(name: str) -> None:
    environ, line = HALVES[name]
    with pytest.raises(HalfAWorldError) as refused:
        found_world(environ)
    assert str(refused.value).startswith(line)
    assert refused.value.speaks


@pytest.mark.parametrize(("place", "speaks"), [({"LOCAL_RANK": "0"}, True), ({"LOCAL_RANK": "1"}, False)])
def test_one_process_alone_says_so(place: dict[str, str], speaks: bool) -> None:
    with pytest.raises(HalfAWorldError) as refused:
        found_world({"WORLD_SIZE": "4", **place})
    assert refused.value.speaks is speaks


def test_tasks_of_a_node_are_read_where_nodes_have_different_numbers() -> None:
    many = SRUN | {"SLURM_TASKS_PER_NODE": "4(x2),1", "SLURM_NTASKS": "9", "SLURM_PROCID": "8", "SLURM_NODEID": "2"}
    world = found_world(many)
    assert world is not None
    assert world.local_size == 1


def test_two_steps_of_one_job_have_ports_of_their_own() -> None:
    steps = [found_world(SRUN | {"SLURM_STEP_ID": step}) for step in ("0", "1")]
    jobs = [found_world(SRUN | {"SLURM_JOB_ID": job}) for job in ("18", "19")]
    assert len({port_of(world) for world in (*steps, *jobs) if world is not None}) == 4
