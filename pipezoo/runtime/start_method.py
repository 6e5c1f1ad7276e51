"""How a process comes by its pipeline: a forked one inherits it, a spawned one starts from nothing and rebuilds it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipezoo.errors import ConfigError
from pipezoo.experiment.component import Component
from pipezoo.experiment.experiment import Experiment
from pipezoo.runtime.build import build_pipeline
from pipezoo.runtime.evaluation import forward_only
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.start_values import FILE, leave_start
from pipezoo.runtime.transport import Beside, Transport
from pipezoo.supervisor.processes import end_monitors, unsafe_to_fork
from pipezoo.supervisor.worker_channel import WorkerChannel

Work = Callable[[Pipeline, WorkerChannel], Any]


def start_method(asked: str | None) -> tuple[str, str]:
    """``fork`` or ``spawn``, and why it is not fork where nobody asked. Raises ConfigError."""
    end_monitors()
    unsafe = unsafe_to_fork()
    if asked == "fork" and unsafe:
        raise ConfigError(f"launch.start_method=fork: {unsafe}; valid: spawn, null")
    if asked is not None:
        return asked, ""
    return ("spawn", unsafe) if unsafe else ("fork", "")


def target(work: Work, pipeline: Pipeline, experiment: Experiment, method: str) -> Callable[[WorkerChannel], Any]:
    """``work`` for a process that is started by ``method``; it must be picklable where that is spawn."""
    if method == "here":  # what trains must not be what the next one starts from
        return partial(
            work, replace(pipeline, stages=copy.deepcopy(pipeline.stages), loss=copy.deepcopy(pipeline.loss))
        )
    if method == "fork":
        return partial(work, pipeline)
    if not (start := pipeline.file(FILE)).exists():
        leave_start(pipeline.stages.model, start)
    return partial(_rebuild_and_work, _picklable(experiment), pipeline.scratch, pipeline.checkpoints, work)


def with_transport(pipeline: Pipeline, experiment: Experiment, method: str) -> Pipeline:
    """The pipeline with what carries its messages. Raises ConfigError: these ranks cannot have what was asked for."""
    if pipeline.pp == 1:
        return pipeline
    try:
        pipeline = replace(pipeline, transport=_transport(pipeline, method))
        if pipeline.evaluation is not None:
            forwards = replace(pipeline, actions=[forward_only(actions) for actions in pipeline.actions])
            pipeline = replace(pipeline, eval_transport=_transport(forwards, method))
        return pipeline
    except ValueError as error:
        raise experiment.executor.reword(error) from error


def _transport(pipeline: Pipeline, method: str) -> Transport:
    """One for each pipeline of the mesh."""
    made = [pipeline.executor.transport(pipeline, method) for _ in range(pipeline.spread.size)]
    return made[0] if len(made) == 1 else Beside(pipeline.spread, made)


def _picklable(experiment: Experiment) -> Experiment:
    """The same without what its parts have looked up, which each process looks up for itself."""
    values = {field.name: getattr(experiment, field.name) for field in fields(experiment)}
    components: dict[str, Any] = {
        name: replace(value) for name, value in values.items() if isinstance(value, Component)
    }
    return replace(experiment, **components)


def _rebuild_and_work(
    experiment: Experiment, scratch: Path, checkpoints: Path | None, work: Work, channel: WorkerChannel
) -> Any:
    pipeline, _ = build_pipeline(experiment, scratch, checkpoints, proved=True, start=scratch / FILE)
    return work(with_transport(pipeline, experiment, "spawn"), channel)
