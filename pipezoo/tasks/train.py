"""Train a pipeline for real, hold it against one device, and leave a folder: ``task=train`` and ``task=verify``."""

from __future__ import annotations

import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import pipezoo
from pipezoo.cost import Cost, measured_seconds
from pipezoo.errors import VerificationError
from pipezoo.experiment import Experiment
from pipezoo.report.folder import METRICS, RESULT, SCHEDULE, TIMELINE, MetricsFile, write_json, write_text
from pipezoo.report.perfetto import write_timeline
from pipezoo.report.text import draw_together
from pipezoo.runtime.launch import Limits, launch
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.prepare import num_cores, prepare
from pipezoo.runtime.rank import run_rank
from pipezoo.runtime.verdict import judge
from pipezoo.simulator import predict, simulate
from pipezoo.sizes import Sizes
from pipezoo.timeline import Timeline

Say = Callable[[str], None]
LOG = "ranks.log"  # what the ranks print
PLAIN_WIDTH = 100  # columns of a timeline that goes into a pipe


def run(experiment: Experiment, folder: Path, say: Say) -> dict[str, Any]:
    """Train, record, verify, and write the files of a run into ``folder``.

    Returns:
        What stands in ``result.json``.

    Raises:
        PipezooError: whatever kept the run from a verified end; what was measured until then is in the folder.
    """
    with ExitStack() as stack:
        scratch = Path(tempfile.mkdtemp(prefix="pipezoo-"))  # readable by this user alone
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        stack.callback(_drop_if_empty, folder / LOG)
        pipeline, sizes = prepare(experiment, scratch)
        write_text(folder / SCHEDULE, pipeline.schedule.to_csv())
        _introduce(experiment, pipeline, sizes, say)
        steps = _train(experiment, pipeline, folder)
        measured = [_timeline(pipeline, step) for step in steps.recorded()]
        result = _result(experiment, pipeline, sizes, steps, measured)
        predicted, result["prediction"] = _predict(pipeline, measured)
        result["bubble"]["predicted"] = result["prediction"].pop("bubble")
        write_timeline(folder / TIMELINE, [predicted, *measured])
        _show(predicted, measured[-1], say)
        if experiment.verify:
            result |= _verify(experiment, pipeline, steps, folder)
        write_json(folder / RESULT, result | {"status": "ok" if result["verified"] != "failed" else "failed"})
        _conclude(result, say)
        if result["verified"] == "failed":
            raise VerificationError(
                f"the pipeline does not compute what one device computes: {result['first_difference']}"
            )
        return result | {"status": "ok"}


class Steps:
    """What the ranks say of their steps, put together once all of them have said it."""

    def __init__(self, pipeline: Pipeline, metrics: MetricsFile, tell: Callable[[int, float], None]) -> None:
        self._pipeline, self._metrics, self._tell = pipeline, metrics, tell
        self._heard: dict[int, list[dict[str, Any]]] = {}
        self._ends: list[float] = []
        self.losses: list[list[float]] = []
        self.seconds: list[float] = []

    def hear(self, name: str, message: dict[str, Any]) -> None:
        step = message["step"]
        heard = self._heard.setdefault(step, [])
        heard.append(message)
        if len(heard) == self._pipeline.num_ranks:
            self._complete(step, self._heard.pop(step))

    def _complete(self, step: int, heard: list[dict[str, Any]]) -> None:
        """A step takes from the end of the one before, on its last rank, to its own end there."""
        self.losses += [message["losses"] for message in heard if message["losses"]]
        ended = max(message["ended"] for message in heard)
        began = self._ends[-1] if self._ends else min(message["began"] for message in heard)
        self._ends.append(ended)
        self.seconds.append(ended - began)
        loss = self.losses[-1][-1]
        self._metrics.append({"step": step, "loss": loss, "seconds": self.seconds[-1]})
        self._tell(step, loss)

    def recorded(self) -> range:
        return range(max(0, self._pipeline.steps - self._pipeline.record_steps), self._pipeline.steps)

    def steady(self) -> list[float]:
        """Seconds of all steps but the first, which also warms up."""
        return self.seconds[1:] or self.seconds


def _introduce(experiment: Experiment, pipeline: Pipeline, sizes: Sizes, say: Say) -> None:
    counts = [sum(p.numel() for p in pipeline.stages.parameters(i).values()) for i in range(sizes.num_stages)]
    spread = f"{min(counts):,} to {max(counts):,}" if min(counts) < max(counts) else f"{counts[0]:,}"
    unused = len(list(pipeline.stages.model.parameters())) - len({n for s in pipeline.stages.names for n in s.values()})
    backend = "nccl" if experiment.device == "cuda" else "gloo"
    say(f"pipezoo {pipezoo.__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    say(
        f"model     {experiment.model_name}: {sizes.num_stages} stages by split={experiment.split_name}, "
        f"{spread} parameters each" + (f"; {unused} parameters that forward does not use" if unused > 0 else "")
    )
    say(
        f"schedule  {experiment.schedule_name}: {sizes.num_stages} stages on {sizes.num_ranks} ranks, "
        f"{sizes.num_microbatches} microbatches of {sizes.batch_size // sizes.num_microbatches} rows"
    )
    if sizes.lines:
        say(f"derived   {', '.join(sizes.lines)}")
    say(
        f"launch    {pipeline.num_ranks} processes over {backend}, "
        f"threads={pipeline.threads} each on {num_cores()} cores; {experiment.steps} steps of {experiment.optimizer_name}"
    )


def _train(experiment: Experiment, pipeline: Pipeline, folder: Path) -> Steps:
    with ExitStack() as stack:
        metrics = stack.enter_context(MetricsFile(folder / METRICS))
        tell = _progress(stack, pipeline.steps)
        steps = Steps(pipeline, metrics, tell)
        launch(
            {f"rank {rank}": partial(run_rank, pipeline, rank) for rank in range(pipeline.num_ranks)},
            Limits(experiment.launch.first_step_timeout, experiment.launch.step_timeout),
            folder / LOG,
            describe=partial(_describe, pipeline),
            on_step=steps.hear,
        )
    return steps


def _describe(pipeline: Pipeline, name: str, action: int) -> str:
    actions = pipeline.actions[int(name.rpartition(" ")[2])]
    return f", at {actions[action]}" if 0 <= action < len(actions) else ""


def _progress(stack: ExitStack, total: int) -> Callable[[int, float], None]:
    """A bar with the loss, where a person looks; nothing in a pipe."""
    if not sys.stderr.isatty():
        return lambda step, loss: None
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4g}"))
    bar = stack.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
    task = bar.add_task("training", total=total, loss=float("nan"))
    return lambda step, loss: bar.update(task, completed=step + 1, loss=loss)


def _timeline(pipeline: Pipeline, step: int) -> Timeline:
    """The measured timeline of one step, from the spans that the ranks left."""
    parts = []
    for rank in range(pipeline.num_ranks):
        spans = np.load(pipeline.file(f"spans{rank}.npy"), allow_pickle=False)
        own = spans[spans[:, 0] == step]
        parts.append(np.column_stack([np.full(len(own), rank), own[:, 1:]]))
    rank, stage, op, microbatch, start, end = np.concatenate(parts).T
    ints = (rank.astype(np.int32), stage.astype(np.int32), op.astype(np.int8), microbatch.astype(np.int32))
    return Timeline(*ints, start, end, pipeline.num_ranks, "measured").shifted()


def _result(
    experiment: Experiment, pipeline: Pipeline, sizes: Sizes, steps: Steps, measured: list[Timeline]
) -> dict[str, Any]:
    steady = steps.steady()
    median = statistics.median(steady)
    return {
        "task": experiment.task,
        "verified": None,
        "max_relative_difference": None,
        "losses": [losses[-1] for losses in steps.losses],
        "step_seconds": {"median": median, "min": min(steady), "max": max(steady), "first": steps.seconds[0]},
        "samples_per_second": sizes.batch_size / median,
        "bubble": {"measured": measured[-1].bubble()},
        "num_stages": sizes.num_stages,
        "num_ranks": sizes.num_ranks,
        "num_microbatches": sizes.num_microbatches,
        "batch_size": sizes.batch_size,
        "schedule": experiment.schedule_name,
        "model": experiment.model_name,
        "split": experiment.split_name,
        "data": experiment.data_name,
        "optimizer": experiment.optimizer_name,
        "loss": experiment.loss_name,
        "launch": experiment.launch_name,
        "dtype": experiment.dtype,
        "device": experiment.device,
        "seed": experiment.seed,
        "steps": experiment.steps,
        "threads_per_rank": pipeline.threads,
        "derived": list(sizes.lines),
        "versions": {"pipezoo": pipezoo.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "config_hash": experiment.config_hash,
    }


def _predict(pipeline: Pipeline, measured: list[Timeline]) -> tuple[Timeline, dict[str, Any]]:
    """What the simulator makes of the stage times that this run measured, hops for free."""
    num_stages = pipeline.stages.num_stages
    sends = [float(pipeline.stages.message_bytes(stage + 1)) for stage in range(num_stages - 1)] + [0.0]
    nothing = np.zeros(num_stages)
    cost = Cost(measured_seconds(measured, num_stages), nothing, nothing, np.array(sends), nothing)
    prediction = predict(pipeline.schedule, cost)
    prediction.pop("peak_memory")  # no one measured what F keeps
    prediction["cost"] = cost.to_dict()
    return simulate(pipeline.schedule, cost), prediction


def _show(predicted: Timeline, measured: Timeline, say: Say) -> None:
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else PLAIN_WIDTH
    say("")
    say(draw_together([predicted, measured], width, colour=terminal))
    say("")


def _verify(experiment: Experiment, pipeline: Pipeline, steps: Steps, folder: Path) -> dict[str, Any]:
    limits = Limits(experiment.launch.first_step_timeout, experiment.launch.step_timeout * pipeline.num_ranks)
    judged = partial(judge, pipeline, steps.losses, experiment.tolerance)
    verdict = launch({"the reference": judged}, limits, folder / LOG)["the reference"]
    return {
        "verified": verdict["verified"],
        "max_relative_difference": verdict["max_relative_difference"],
        "tolerance": verdict["tolerance"],
        "num_compared": verdict["num_compared"],
        "full_batch_difference": verdict["full_batch_difference"],
        "first_difference": verdict["first"],
    }


def _conclude(result: dict[str, Any], say: Say) -> None:
    seconds = result["step_seconds"]["median"]
    first, last = result["losses"][0], result["losses"][-1]
    say(f"loss      {first:.6g} -> {last:.6g} in {len(result['losses'])} steps")
    say(f"step      {seconds * 1e3:.1f} ms, {result['samples_per_second']:.0f} samples/s")
    if result["verified"] == "exact":
        say(
            f"verified  exact: {result['num_compared']} tensors equal to one device's, bit for bit"
            + (
                f"; to the whole batch's within {result['full_batch_difference']:.1g}"
                if result["full_batch_difference"]
                else ""
            )
        )
    elif result["verified"] == "close":
        say(
            f"verified  close: {result['num_compared']} tensors within {result['max_relative_difference']:.2g} of one device's "
            f"(tolerance {result['tolerance']:g})"
        )


def _drop_if_empty(log: Path) -> None:
    if log.exists() and not log.stat().st_size:
        log.unlink()
