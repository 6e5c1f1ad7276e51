"""A command line that is one process of a world: rank 0 does what was typed, and the others do what it tells them.

rank 0     composes, claims the folder, prints, has the verdict      supervisor/world_host.py
others     are told plain values, build the pipeline, fork a rank    supervisor/world_guest.py
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipezoo.cli.attempts import finds_its_folder_again, slurm_folder
from pipezoo.cli.request import Request
from pipezoo.cli.typed_words import start_timeout, world_port
from pipezoo.config.overrides import key_of, parted
from pipezoo.config.resolve import build, check_components
from pipezoo.config.resolved import ResolvedConfig
from pipezoo.errors import ConfigError, PipezooError, RankError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.derive import known_ranks
from pipezoo.experiment.experiment import Experiment
from pipezoo.found_world import FoundWorld
from pipezoo.launch.processes import Processes
from pipezoo.launch.slurm import Slurm
from pipezoo.supervisor.world_host import Host, check_size, hosted

JOINS = "launch=world"
CHOOSE = ("launch", "launch@launch", "launch._target_")  # keys that say which launch it is
ELSEWHERE = re.compile("world|slurm", re.IGNORECASE)
OWN_KEYS = {f"launch.{field.name}" for field in fields(Slurm)} - {f"launch.{field.name}" for field in fields(Processes)}


def words_in_a_world(typed: Sequence[str], of_folder: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words as a process of a world composes them; outside of one, those of a folder without a world's.

    A folder neither joins a world nor submits a job, whose keys are shell: who wants that types it.

    Raises:
        ConfigError: a sweep, or another launch.
    """
    host = hosted()
    if host is None:
        return [*typed], [word for word in of_folder if not _joins_or_submits(word)]
    options, overrides = parted(typed)
    if any(option in ("-m", "--multirun") for option in options) or "hydra.mode=MULTIRUN" in overrides:
        raise ConfigError(
            f"-m: this is one run in the {host.found.size} processes of {host.found.starter}; valid: a sweep without "
            f"{host.found.starter}, or hydra/launcher=submitit_slurm, a job for each run"
        )
    kept = [word for word in of_folder if key_of(word).partition(".")[0] != "launch"]
    typed_keys = {key_of(word) for word in overrides}
    joined = [*typed] if "launch" in typed_keys else [*typed, JOINS]
    if "hydra.run.dir" not in typed_keys and finds_its_folder_again(host.found):
        joined.append(f"hydra.run.dir={slurm_folder(host.found)}")
    return joined, kept


def _joins_or_submits(word: str) -> bool:
    key = key_of(word)
    return key in OWN_KEYS or (key in CHOOSE and ELSEWHERE.search(word.partition("=")[2]) is not None)


def check_launch(experiment: Experiment, host: Host | None) -> None:
    """Raises ConfigError: a world without ``launch=world``, the reverse, or a world of another size."""
    launch = experiment.launch
    if host is None and launch.joins:
        raise ConfigError(
            "launch=world: this process is in no world of several; valid: torchrun --nproc-per-node N -m pipezoo ..., "
            "srun -n N python -m pipezoo ..., or launch=processes"
        )
    if host is None:
        return
    size, starter = host.found.size, host.found.starter
    if not launch.joins:
        raise ConfigError(
            f"launch={experiment.launch_name}: {starter} has started {size} processes, each of which would run all of "
            f"it; valid: launch=world, or this command without {starter}"
        )
    ranks = known_ranks(experiment)
    if ranks is not None:  # else it is known once the model is split
        check_size(ranks, experiment.mesh.size, size, starter)


def for_the_world(request: Request, host: Host) -> Request:
    """The request with as many ranks as the world has processes, where nobody says how many."""
    if isinstance(request.resolved, ConfigError):
        return request
    resolved = request.resolved
    values = dict(resolved.values)
    experiment = build(resolved)
    says_itself = experiment.model.stages_told is not None or not experiment.schedule.takes("num_ranks")
    if values.get("ranks") is None and values.get("stages") is None and not says_itself:
        ranks = values["ranks"] = max(1, host.found.size // experiment.mesh.size)
        told = f"derived   ranks={ranks}, for the {host.found.size} processes of {host.found.starter}"
        request = replace(request, notes=(*request.notes, told))
    return replace(request, resolved=replace(resolved, values=values))


def tell_the_world(host: Host, request: Request, experiment: Experiment) -> None:
    """Meet the others and tell them what to run."""
    assert isinstance(request.resolved, ResolvedConfig)
    host.port, host.interface = (getattr(experiment.launch, name, None) for name in ("port", "interface"))
    host.gather(experiment.launch.step_timeout)
    resolved = request.resolved
    told = {
        "values": dict(resolved.values),
        "choices": dict(resolved.choices),
        "sources": {group: dict(sources) for group, sources in resolved.sources.items()},
        "trust": asdict(resolved.trust),
        "folder": str(request.folder.resolve()),
        "cwd": os.getcwd(),
        "config_hash": experiment.config_hash,
        "machines": [{"host": machine["host"], "network": machine["network"]} for machine in host.machines],
        "interface": host.interface,
        "resume": experiment.resume,
        "attempt": host.found.attempt,
    }
    host.send("request", **told)


def follow(found: FoundWorld, words: Sequence[str]) -> int:
    """Be another process of a world than the first; the exit code of the run."""
    from pipezoo.supervisor.world_guest import DismissedError, Membership, be_quiet

    spoken = be_quiet()
    try:
        membership = Membership(found, words, world_port(words), start_timeout(words))
    except DismissedError as dismissed:
        return dismissed.code
    except Exception as error:
        if found.rank == 1 or not isinstance(error, PipezooError):  # rank 0 may be gone, and say nothing
            with suppress(OSError):
                os.write(spoken, f"error: rank {found.rank}: {' '.join(str(error).split())}\n".encode())
        return error.exit_code if isinstance(error, PipezooError) else RankError.exit_code
    try:
        return _follow(membership, found)
    except DismissedError as dismissed:
        return dismissed.code
    except BaseException as error:
        membership.refuse(error)
        return membership.last_word()


def _follow(membership: Any, found: FoundWorld) -> int:
    import pipezoo.tasks.train  # noqa: F401  while rank 0 composes
    from pipezoo.runtime.rank import run_rank
    from pipezoo.runtime.rank_memory import forget_copies
    from pipezoo.supervisor.world_guest import sees
    from pipezoo.tasks.join import joined_pipeline

    told = membership.request()
    with suppress(OSError):
        os.chdir(told["cwd"])
    experiment = _experiment(told)
    check_components(experiment)
    folder = Path(told["folder"])
    with contextlib.ExitStack() as stack:
        own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pipezoo-")))
        pipeline = joined_pipeline(experiment, own, folder, membership, found, told)
        place = membership.scratch()
        shares = sees(Path(place["file"]), place["token"])
        if shares:
            pipeline = replace(pipeline, scratch=Path(place["file"]).parent)
        forget_copies(pipeline.stages.model)
        membership.ready(shares)
        name = pipeline.spread.names(experiment.launch.names(pipeline.pp))[found.rank]
        actions = pipeline.actions_of(found.rank)
        return int(membership.work(name, partial(run_rank, found.rank, pipeline), actions, own, not shares))


def _experiment(told: Mapping[str, Any]) -> Experiment:
    trust = Allowlist(tuple(told["trust"]["packages"]), tuple(told["trust"]["folders"]))
    resolved = ResolvedConfig(told["values"], told["choices"], trust, told["sources"], told["values"])
    experiment = replace(build(resolved), config_hash=str(told["config_hash"]), resume=told["resume"])
    return experiment if not told["attempt"] else replace(experiment, fault=None)
