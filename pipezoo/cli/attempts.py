"""A run that its starter begins again: torchrun's ``--max-restarts``, and a job of Slurm that is put back in the queue.

    attempt 0    steps 0 1 2 | 3  (a rank is killed)      checkpoint after 3
    attempt 1                  3 4 5                      the same folder, from that checkpoint

    result.json      attempts: [{exit_code, first_failure, from_step}, ...], losses of all steps
    metrics.jsonl    every step once
    failure.json     of an attempt that failed becomes failure.0.json

A fault on purpose strikes in the first attempt alone. What would end alike again is not tried again: a config that was
refused, a verification that failed, a loss that is not finite, a folder that cannot be written.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipezoo.cli.outcome import result_of
from pipezoo.errors import ConfigError, NonFiniteError, OutputError, PipezooError, VerificationError
from pipezoo.experiment.experiment import Experiment
from pipezoo.found_world import SRUN, FoundWorld
from pipezoo.results.run_dir import FAILURE, METRICS, RESULT, MetricsFile, read_metrics, write_json
from pipezoo.supervisor.rendezvous_dir import NAME as SCRATCH
from pipezoo.supervisor.world_host import Host

FOR_GOOD = tuple(kind.exit_code for kind in (ConfigError, VerificationError, NonFiniteError, OutputError))
FOLDER, ENDED, JOB = "folder", "ended", "job"


@dataclass
class Attempts:
    """Of a run that was begun before.

    Args:
        folder: of all of them.
        earlier: what ``result.json`` says of those before this one.
        from_step: where this one begins.
        losses: of the steps before that.
    """

    folder: Path
    earlier: list[dict[str, Any]]
    from_step: int = 0
    losses: list[float] = field(default_factory=list)


def ended_for_good(host: Host) -> int | None:
    """The exit code of the attempt before, where another one would end alike; None: there is none, or it might not."""
    if not host.found.attempt or not host.found.has_store:
        return None
    code = host.open().told_by_last_attempt(ENDED)
    return code if code in FOR_GOOD else None


def tell_how_it_ended(host: Host, code: int) -> None:
    """For the attempt after this one."""
    if host.found.has_store:
        with suppress(PipezooError, RuntimeError):
            host.open().tell_next_attempt(ENDED, code)


def slurm_folder(found: FoundWorld) -> str:
    """Where a job of Slurm writes that was not told where: a name that it finds again when it is begun again."""
    return f"outputs/slurm-{found.job}"


def finds_its_folder_again(found: FoundWorld) -> bool:
    """Whether the run goes into that folder: it is free, or this job's own of an attempt before."""
    return found.starter == SRUN and (found.attempt > 0 or not Path(slurm_folder(found)).exists())


def begun_before(host: Host, folder: Path) -> Path | None:
    """The folder of the attempts before this one, with a run in it; None: this is the first that has one."""
    if not host.found.attempt:
        return None
    told = host.open().told_by_last_attempt(FOLDER) if host.found.has_store else None
    known = Path(told) if told is not None else folder
    result = result_of(known)
    if not result or result.get("status") == "ok":
        return None
    is_ours = told is not None or result.get(JOB) == host.found.job
    return known if is_ours else None


def note_first(host: Host, folder: Path) -> None:
    """Say where the run is, should there be another attempt."""
    if host.found.has_store:
        host.open().tell_next_attempt(FOLDER, str(folder.resolve()))
    elif host.found.job:
        write_json(folder / RESULT, {**result_of(folder), JOB: host.found.job})


def go_on(host: Host, folder: Path, experiment: Experiment) -> tuple[Attempts, Experiment]:
    """Take over the folder of the attempts before, and begin where their last checkpoint ended."""
    from pipezoo.runtime.checkpoint import FOLDER as CHECKPOINTS
    from pipezoo.runtime.checkpoint import complete
    from pipezoo.runtime.read_checkpoint import read

    before = result_of(folder)
    earlier = [*before.get("attempts", [])][: host.found.attempt]
    if len(earlier) < host.found.attempt:
        failed = _first_failure(folder)
        begun = int((before.get("resumed") or {}).get("step", 0))
        earlier.append({"exit_code": before.get("exit_code"), "first_failure": failed, "from_step": begun})
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    with suppress(OSError):
        (folder / FAILURE).rename(folder / f"failure.{len(earlier) - 1}.json")
    checkpoints = complete(folder / CHECKPOINTS)
    experiment = replace(experiment, fault=None)
    attempts = Attempts(folder, earlier)
    if checkpoints:
        experiment = replace(experiment, resume=str(folder.resolve()))
        attempts.from_step = read(str(folder)).step
    attempts.losses = _keep(folder, attempts.from_step)
    kept = {name: before[name] for name in (JOB, "started", "pid") if name in before}
    write_json(folder / RESULT, {"status": "running", **kept, "attempts": earlier})
    return attempts, experiment


def conclude(attempts: Attempts, code: int) -> None:
    """Write down in ``result.json`` how all of them ended, this one included, and the losses of all steps."""
    result = result_of(attempts.folder)
    failed = _first_failure(attempts.folder) if code else None
    own = {"exit_code": code, "first_failure": failed, "from_step": attempts.from_step}
    losses = [*attempts.losses, *result.get("losses", [])]
    with suppress(OutputError):
        write_json(attempts.folder / RESULT, {**result, "losses": losses, "attempts": [*attempts.earlier, own]})


def _keep(folder: Path, steps: int) -> list[float]:
    """Leave the lines of the first ``steps`` steps in ``metrics.jsonl``; their losses."""
    lines = [line for line in read_metrics(folder) if isinstance(line.get("step"), int) and line["step"] < steps]
    (folder / METRICS).unlink(missing_ok=True)
    with MetricsFile(folder / METRICS) as file:
        for line in lines:
            file.append(line)
    return [line["loss"] for line in lines]


def _first_failure(folder: Path) -> Any:
    import json

    try:
        return json.loads((folder / FAILURE).read_text()).get("first_failure")
    except (OSError, ValueError, AttributeError):
        return None


def said(attempts: Sequence[dict[str, Any]]) -> str:
    """``attempt 1; the one before ended with exit code 4 (rank 1)``"""
    last = attempts[-1]
    who = f" ({last['first_failure']})" if last.get("first_failure") else ""
    code = last.get("exit_code")
    how = f"ended with exit code {code}{who}" if code is not None else "was killed"
    return f"attempt {len(attempts)}; the one before {how}"
