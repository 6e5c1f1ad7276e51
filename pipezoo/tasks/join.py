"""A pipeline whose ranks are the processes of a world: built in each of them, and met by its store."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipezoo.errors import ConfigError
from pipezoo.experiment.experiment import Experiment
from pipezoo.found_world import FoundWorld
from pipezoo.runtime.build import build_pipeline
from pipezoo.runtime.checkpoint import FOLDER
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.start_method import with_transport
from pipezoo.simulator.timeline import Timeline
from pipezoo.supervisor.process_group import stay_on_loopback
from pipezoo.supervisor.this_machine import address_towards, host_name, interface_of
from pipezoo.supervisor.workers import Worker
from pipezoo.supervisor.world_guest import Membership, check_local_rank
from pipezoo.supervisor.world_host import Guest, Host, check_size

TOKEN_FILE = "seen"
IN_A_WORLD = "world"  # how its processes are started: by somebody else, so that they share no memory
START, END = 4, 5  # columns of a rank's spans


def joined_pipeline(
    experiment: Experiment,
    scratch: Path,
    folder: Path,
    membership: Membership,
    found: FoundWorld,
    told: Mapping[str, Any],
) -> Pipeline:
    """The pipeline as another process than rank 0 builds it."""
    machines: Sequence[Mapping[str, Any]] = told["machines"]
    choose_interface([machine["network"] for machine in machines], membership.address, told["interface"])
    local_rank = local_place(found, machines)
    _check_gpu(experiment, local_rank)
    pipeline, _ = build_pipeline(experiment, scratch, folder / FOLDER, proved=True)
    return with_transport(replace(pipeline, store=membership.group, local_rank=local_rank), experiment, IN_A_WORLD)


def hosting_pipeline(pipeline: Pipeline, experiment: Experiment, host: Host) -> Pipeline:
    """The pipeline of rank 0, of as many processes as the world has. Raises ConfigError."""
    check_size(pipeline.pp, pipeline.spread.size, host.found.size, host.found.starter)
    choose_interface([machine["network"] for machine in host.machines], host.address, host.interface)
    local_rank = local_place(host.found, host.machines)
    _check_gpu(experiment, local_rank)
    pipeline = replace(pipeline, store=host.open().group(), local_rank=local_rank)
    return with_transport(pipeline, experiment, IN_A_WORLD)


def show_folder(host: Host, scratch: Path) -> None:
    """Tell the others where the folder is, with a file in it that they see or do not see."""
    token = secrets.token_hex(16)
    (scratch / TOKEN_FILE).write_text(token)
    host.send("scratch", file=str((scratch / TOKEN_FILE).resolve()), token=token)


def wait_for_others(host: Host, pipeline: Pipeline, seconds: float) -> None:
    """Until all have built the pipeline. Raises ConfigError: checkpoints, and one does not see the folder."""
    host.ready(time.monotonic() + seconds)
    if pipeline.checkpoints is not None and (blind := host.blind) is not None:
        key = f"checkpoint.every={pipeline.checkpoint_every}"
        raise ConfigError(
            f"{key}: needs a folder that all machines see, and rank {blind.rank} on {blind.host} does not see "
            f"{pipeline.scratch.parent}; valid: hydra.run.dir= on a shared file system, or checkpoint.every=null"
        )
    host.measure_clocks()


def other_workers(host: Host, names: Sequence[str], pipeline: Pipeline, log: Path) -> dict[str, Worker]:
    """The ranks of the other processes, which begin."""
    actions = [pipeline.actions_of(process) for process in range(pipeline.num_processes)]
    return host.workers(names, actions, pipeline.scratch, log)


def on_our_clock(host: Host, pipeline: Pipeline) -> None:
    """Move the spans that the others left to the clock of this machine, as it was before the run and is after it."""
    host.measure_clocks()
    for rank, process in enumerate(pipeline.writers):
        if process in host.guests:
            _move(pipeline.file(f"spans{rank}.npy"), host.guests[process])


def clock_doubt(host: Host, measured: Timeline) -> str:
    """What the clocks of several machines do not allow to say, in words; "" where they are good enough."""
    typical = float(np.median(measured.end - measured.start)) if measured.num_spans else 0.0
    if host.clock_error <= typical:
        return ""
    error, action = host.clock_error * 1e6, typical * 1e6
    return f"may be {error:.0f} us apart, and an action takes {action:.0f} us: the measured bubble says nothing"


def _move(file: Path, guest: Guest) -> None:
    if not guest.clock.offsets or not file.exists():
        return
    spans = np.load(file, allow_pickle=False)
    for column in (START, END):
        spans[:, column] = [guest.clock(seconds) for seconds in spans[:, column].tolist()]
    np.save(file, spans)


def local_place(found: FoundWorld, machines: Sequence[Mapping[str, Any]]) -> int:
    """Which of the processes of its machine this one is; counted where the starter does not say."""
    if found.local_rank is not None:
        return found.local_rank
    here = machines[found.rank]["host"], machines[found.rank]["network"]
    return sum((machine["host"], machine["network"]) == here for machine in machines[: found.rank])


def choose_interface(networks: Sequence[str], address: str, asked: str | None) -> str:
    """Have gloo and nccl take the network between the machines: loopback on one, else what leads to rank 0.

    What a person has set in the environment stays. Returns what is taken.
    """
    if len(set(networks)) == 1 and asked is None:
        stay_on_loopback()
        return os.environ["GLOO_SOCKET_IFNAME"]
    found = asked or interface_of(address_towards(address, 1)) or ""
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if found and (asked or name not in os.environ):
            os.environ[name] = found
    return os.environ.get("GLOO_SOCKET_IFNAME", "")


def _check_gpu(experiment: Experiment, local_rank: int) -> None:
    if experiment.device == "cuda":
        check_local_rank(local_rank, torch.cuda.device_count(), host_name())
