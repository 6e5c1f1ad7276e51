"""Train a pipeline for real, hold it against one device, and leave a folder: ``task=train`` and ``task=verify``."""

from __future__ import annotations

import platform
import statistics
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import pipezoo
from pipezoo.errors import OutputError, VerificationError
from pipezoo.experiment.derive import Sizes
from pipezoo.experiment.experiment import Experiment
from pipezoo.exports.spec import ExportSpec
from pipezoo.results.run_dir import (
    METRICS,
    RESULT,
    MetricsFile,
    read_result,
    write_json,
)
from pipezoo.results.schedule_file import write_schedule
from pipezoo.results.timeline_file import save_timelines
from pipezoo.results.units import count
from pipezoo.runtime.build import build_pipeline
from pipezoo.runtime.checkpoint import FOLDER, CheckpointWriter
from pipezoo.runtime.measurements import Steps, measured_cost, message_bytes, peak_bytes, timelines
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.rank import run_rank
from pipezoo.runtime.restore import check_origin
from pipezoo.runtime.start_method import start_method, target, with_transport
from pipezoo.simulator.simulate import simulate
from pipezoo.simulator.timeline import Timeline
from pipezoo.splitters._stage_modules import names_by_stage, stack_of
from pipezoo.supervisor.rendezvous_dir import rendezvous_dir
from pipezoo.supervisor.supervisor import Handlers, Limits, launch
from pipezoo.tasks.console import conclude, introduce, progress
from pipezoo.tasks.export import make_exports, write_exports
from pipezoo.tasks.terminal import PrintLine, print_timelines
from pipezoo.verify.verify import verify_run

LOG = "ranks.log"  # what the ranks print
FAILURE = "failure.json"  # where every rank stood when a run failed


def run(experiment: Experiment, folder: Path, print_line: PrintLine) -> dict[str, Any]:
    """Train, record, predict, verify, and write the files of a run into ``folder``.

    Returns:
        What stands in ``result.json``.

    Raises:
        PipezooError: whatever kept the run from a verified end; what was measured until then is in the folder.
    """
    with ExitStack() as stack:
        scratch = stack.enter_context(rendezvous_dir(folder))
        stack.callback(_drop_if_empty, folder / LOG)
        pipeline, sizes = build_pipeline(experiment, scratch, folder / FOLDER)
        exports = make_exports(experiment, _export_spec(pipeline, sizes)) if experiment.exports else {}
        write_schedule(folder, pipeline.schedule)
        method, why = start_method(experiment.launch.start_method)
        pipeline = with_transport(pipeline, experiment, method)
        introduce(experiment, pipeline, sizes, print_line)
        exported = write_exports(exports, folder, print_line)
        if pipeline.saved is not None:
            print_line(f"resume    from {pipeline.saved.path}, after {count(pipeline.saved.step, 'step')}")
            for words in check_origin(pipeline.saved, pipeline.origin):
                print_line(f"          {words}")
        if method == "spawn":
            print_line(f"          spawned, each builds the pipeline anew{f': {why}' if why else ''}")

        steps, told = _train(experiment, pipeline, sizes, folder, method, print_line)
        measured = experiment.launch.timelines(timelines(pipeline), pipeline.schedule, message_bytes(pipeline))
        result = _describe(experiment, pipeline, sizes) | _measure(experiment, sizes, steps, measured)
        cost = measured_cost(pipeline, measured, told, experiment.launch.p2p)
        predicted = simulate(pipeline.schedule, cost)
        _compare(result, predicted.result() | {"cost": cost.to_dict()}, peak_bytes(told))
        save_timelines(folder, [predicted, *measured[-experiment.record_steps :]])
        print_timelines([predicted, measured[-1]], print_line)

        if experiment.verify:
            result |= _verify(experiment, pipeline, steps, folder, method)
        if exported:
            result["export"] = exported
        result["status"] = "failed" if result["verified"] == "failed" else "ok"
        write_json(folder / RESULT, result)
        conclude(result, print_line)
    if result["verified"] == "failed":
        raise VerificationError(result["failure"])
    return result


def _export_spec(pipeline: Pipeline, sizes: Sizes) -> ExportSpec:
    stages, rows = pipeline.stages, sizes.batch_size // sizes.num_microbatches
    try:
        modules = names_by_stage(stages.model, stages.modules)
    except ValueError as error:
        return ExportSpec(pipeline.schedule, rows, unnamed=str(error))
    return ExportSpec(pipeline.schedule, rows, modules, blocks=stack_of(stages.model))


def _train(
    experiment: Experiment, pipeline: Pipeline, sizes: Sizes, folder: Path, method: str, print_line: PrintLine
) -> tuple[Steps, list[dict[str, Any]]]:
    """Run the ranks; their steps, and what each process returned."""
    with ExitStack() as stack:
        metrics = stack.enter_context(MetricsFile(folder / METRICS))
        bar = progress(stack, pipeline.steps, print_line)

        def on_progress(step: int, loss: float, seconds: float) -> None:
            metrics.append({"step": step, "loss": loss, "seconds": seconds})
            bar(step, loss)

        steps = Steps(pipeline.num_processes, on_progress)
        ranks = {
            name: target(partial(run_rank, rank), pipeline, experiment, method)
            for rank, name in enumerate(experiment.launch.names(pipeline.num_processes))
        }
        actions = dict(zip(ranks, pipeline.actions, strict=True))
        handlers = Handlers(step=steps.on_message, failure=partial(write_json, folder / FAILURE))
        if pipeline.checkpoints is not None:
            keeper = CheckpointWriter(
                pipeline.checkpoints, pipeline.num_processes, experiment.checkpoint.keep, pipeline.origin
            )
            stack.callback(keeper.clear)
            handlers = replace(handlers, saved=keeper.on_message)
        try:
            results = launch(ranks, _limits(experiment), folder / LOG, actions, handlers, method)
        except BaseException:
            losses = {"losses": [losses[-1] for losses in steps.losses]}
            with suppress(OutputError):
                write_json(folder / RESULT, read_result(folder) | _describe(experiment, pipeline, sizes) | losses)
            raise
    return steps, [results[name] for name in ranks]


def _describe(experiment: Experiment, pipeline: Pipeline, sizes: Sizes) -> dict[str, Any]:
    """What ran."""
    return {
        "task": experiment.task,
        "model": experiment.model_name,
        "schedule": experiment.schedule_name,
        "split": experiment.split_name,
        "data": experiment.data_name,
        "optimizer": experiment.optimizer_name,
        "loss": experiment.loss_name,
        "launch": experiment.launch_name,
        "executor": experiment.executor_name,
        "num_stages": sizes.num_stages,
        "num_ranks": sizes.num_ranks,
        "num_microbatches": sizes.num_microbatches,
        "batch_size": sizes.batch_size,
        "steps": experiment.steps,
        "seed": experiment.seed,
        "dtype": experiment.dtype,
        "device": experiment.device,
        "threads_per_process": pipeline.threads,
        "emulated_cost": pipeline.emulated and experiment.cost.choice,
        "derived": [*sizes.lines, *sizes.batch_lines],
        "versions": {"pipezoo": pipezoo.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "config_hash": experiment.config_hash,
        "resumed": pipeline.saved and {"from": str(pipeline.saved.path), "step": pipeline.saved.step},
    }


def _measure(experiment: Experiment, sizes: Sizes, steps: Steps, measured: list[Timeline]) -> dict[str, Any]:
    """What came out. The launch says which clock counts."""
    wall = steps.steady()
    seconds = experiment.launch.step_seconds(wall, measured)
    median = statistics.median(seconds)
    return {
        "verified": None,
        "max_relative_difference": None,
        "losses": [losses[-1] for losses in steps.losses],
        "step_seconds": {"median": median, "min": min(seconds), "max": max(seconds)},
        "first_step_seconds": steps.seconds[0],
        "wall_step_seconds": statistics.median(wall),
        "samples_per_second": sizes.batch_size / median,
        "bubble": {"measured": measured[-1].bubbles()},
    }


def _compare(result: dict[str, Any], prediction: dict[str, Any], peaks: list[int]) -> None:
    """Put the prediction from this run's own stage times beside what it measured."""
    result["bubble"]["predicted"] = prediction.pop("bubble")
    result["memory"] = {"measured": peaks, "predicted": prediction.pop("peak_memory")}
    prediction["step_error"] = prediction["step_seconds"] / result["step_seconds"]["median"] - 1.0
    result["prediction"] = prediction


def _verify(experiment: Experiment, pipeline: Pipeline, steps: Steps, folder: Path, method: str) -> dict[str, Any]:
    judged = target(partial(verify_run, steps.losses, experiment.tolerance), pipeline, experiment, method)
    handlers = Handlers(failure=partial(write_json, folder / FAILURE))
    limits = _limits(experiment, pipeline.num_processes)
    verdict = launch({"the reference": judged}, limits, folder / LOG, handlers=handlers, start_method=method)
    found = verdict["the reference"]
    return {**found, "first_difference": found.pop("first")}


def _limits(experiment: Experiment, factor: int = 1) -> Limits:
    return Limits(experiment.launch.first_step_timeout * factor, experiment.launch.step_timeout * factor)


def _drop_if_empty(log: Path) -> None:
    if log.exists() and not log.stat().st_size:
        log.unlink()
