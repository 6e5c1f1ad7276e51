"""The ranks of a training run: started, heard step by step, watched, and ended."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipezoo.errors import ConfigError, OutputError
from pipezoo.experiment.derive import Sizes
from pipezoo.experiment.experiment import Experiment
from pipezoo.report.live import LivePage
from pipezoo.results.run_dir import FAILURE, METRICS, RESULT, MetricsFile, read_metrics, read_result, write_json
from pipezoo.results.units import count
from pipezoo.runtime.checkpoint import CheckpointWriter
from pipezoo.runtime.evaluation import NUMBER
from pipezoo.runtime.measurements import Steps
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.rank import run_rank
from pipezoo.runtime.rank_memory import forget_copies
from pipezoo.runtime.start_method import target
from pipezoo.supervisor.save_signal import came
from pipezoo.supervisor.supervisor import Handlers, Limits, launch
from pipezoo.supervisor.world_host import Host, hosted
from pipezoo.tasks.console import progress
from pipezoo.tasks.join import on_our_clock, other_workers, wait_for_others
from pipezoo.tasks.terminal import PrintLine
from pipezoo.tasks.tracking import Trackers
from pipezoo.tasks.train_result import described

LOG = "ranks.log"  # what the ranks print


@dataclass(frozen=True)
class Training:
    """A run that is ready to start.

    Args:
        sizes: the numbers that were derived for it.
        folder: where its files go.
        method, why_method: how its processes start (:func:`~pipezoo.runtime.start_method.start_method`).
        print_line: prints a line for people.
    """

    experiment: Experiment
    pipeline: Pipeline
    sizes: Sizes
    folder: Path
    method: str
    why_method: str
    print_line: PrintLine

    @property
    def log(self) -> Path:
        return self.folder / LOG

    def limits(self, factor: int = 1) -> Limits:
        """Seconds without progress, ``factor`` times as many as of one process."""
        launch = self.experiment.launch
        return Limits(launch.first_step_timeout * factor, launch.step_timeout * factor)


class _Listeners:
    """All who hear of a step: the metrics, the trackers, the bar, the live page, and the next checkpoint."""

    def __init__(self, stack: ExitStack, training: Training, trackers: Trackers | None) -> None:
        experiment, pipeline, sizes = training.experiment, training.pipeline, training.sizes
        title = f"{experiment.model_name}, {experiment.schedule_name}, {count(sizes.num_ranks, 'rank')}"
        self._metrics = stack.enter_context(MetricsFile(training.folder / METRICS))
        self._trackers = trackers
        self.live = LivePage(training.folder, title, pipeline.steps, sizes.batch_size)
        self._bar = progress(stack, pipeline.steps, training.print_line)
        self.evaluations = [] if pipeline.saved is None else [*pipeline.saved.evaluations]

    def __call__(self, step: int, loss: float, seconds: float, numbers: dict[str, float]) -> None:
        if NUMBER in numbers:
            self.evaluations.append((step + 1, numbers[NUMBER]))
        told = {"loss": loss, "seconds": seconds, **numbers}
        self._metrics.append({"step": step, **told})
        if self._trackers is not None:
            self._trackers.step(step, told)
        self._bar(step, loss)
        self.live.step(loss, seconds)


def train_ranks(training: Training, trackers: Trackers | None) -> tuple[Steps, list[dict[str, Any]]]:
    """Run the ranks; their steps, and what each process of the first replica returned."""
    experiment, pipeline, host = training.experiment, training.pipeline, hosted()
    with ExitStack() as stack:
        listeners = _Listeners(stack, training, trackers)
        names = pipeline.spread.names(experiment.launch.names(pipeline.pp))
        if host is not None:
            names = _met(host, training, names)
        steps = Steps(len(names), listeners, {name: pipeline.place(i).dp for i, name in enumerate(names)})
        ranks = {
            name: target(partial(run_rank, process), pipeline, experiment, training.method)
            for process, name in enumerate(names)
        }
        actions = {name: pipeline.actions_of(process) for process, name in enumerate(names)}
        handlers = _handlers(stack, training, steps, listeners)
        forget_copies(pipeline.stages.model)
        try:
            remote = {} if host is None else other_workers(host, names, pipeline, training.log)
            results = launch(ranks, training.limits(), training.log, actions, handlers, training.method, remote)
            if host is not None:
                on_our_clock(host, pipeline)
        except BaseException:
            _leave_what_was_reached(training, steps)
            raise
    return steps, [results[names[process]] for process in pipeline.writers]


def _met(host: Host, training: Training, names: list[str]) -> list[str]:
    """The names of the ranks once the other processes of the world are ready."""
    wait_for_others(host, training.pipeline, training.experiment.launch.start_timeout)
    training.print_line(f"world     {host.told(os.environ.get('GLOO_SOCKET_IFNAME', ''))}")
    return host.names(names)


def _handlers(stack: ExitStack, training: Training, steps: Steps, listeners: _Listeners) -> Handlers:
    """Who is told of what the ranks say."""
    experiment, pipeline = training.experiment, training.pipeline
    handlers = Handlers(
        save_at=partial(_save_at, pipeline, training.print_line),
        step=steps.on_message,
        look=listeners.live.look,
        failure=partial(write_json, training.folder / FAILURE),
    )
    if pipeline.checkpoints is None:
        return handlers
    keeper = CheckpointWriter(
        pipeline.checkpoints,
        pipeline.pp,
        experiment.checkpoint.keep,
        pipeline.origin,
        listeners.evaluations,
        experiment.eval.best,
    )
    stack.callback(keeper.clear)
    return replace(handlers, saved=keeper.on_message)


def _leave_what_was_reached(training: Training, steps: Steps) -> None:
    """Write the losses of a run that ends early into its result."""
    folder = training.folder
    losses = [losses[-1] for losses in steps.losses][: len(read_metrics(folder))]  # a signal comes between
    reached = replace(described(training.experiment, training.pipeline, training.sizes), losses=losses).to_dict()
    with suppress(OutputError, ConfigError):  # there is no folder any more
        write_json(folder / RESULT, read_result(folder) | reached)


def _save_at(pipeline: Pipeline, print_line: PrintLine, earliest: int) -> int | None:
    """After how many steps a checkpoint is written that SIGUSR2 has asked for; None: it has not."""
    if not came():
        return None
    if pipeline.checkpoints is None:
        print_line("save      no checkpoint was written at SIGUSR2: checkpoint.every=null")
        return None
    every = pipeline.recipe.accumulate
    steps = -(-earliest // every) * every
    print_line(f"save      after step {min(steps, pipeline.steps)}, as SIGUSR2 asks for")
    return steps
