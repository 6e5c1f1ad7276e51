"""Train a pipeline for real, hold it against one device, and leave a folder: ``task=train`` and ``task=verify``."""

from __future__ import annotations

import os
import statistics
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipezoo.errors import ConfigError, OutputError, VerificationError
from pipezoo.experiment.derive import Sizes
from pipezoo.experiment.experiment import Experiment
from pipezoo.exports.spec import ExportSpec
from pipezoo.report.live import LivePage
from pipezoo.results.provenance import provenance
from pipezoo.results.result import Bubble, Bubbles, Causes, Memory, Prediction, Result, Spread
from pipezoo.results.run_dir import (
    FAILURE,
    METRICS,
    RESULT,
    MetricsFile,
    read_metrics,
    read_result,
    write_json,
)
from pipezoo.results.schedule_file import write_schedule
from pipezoo.results.timeline_file import save_timelines
from pipezoo.results.units import count
from pipezoo.runtime.build import build_pipeline, num_cores
from pipezoo.runtime.checkpoint import FOLDER, CheckpointWriter
from pipezoo.runtime.evaluation import NUMBER, Evaluation
from pipezoo.runtime.measurements import Steps, bubble_causes, measured_cost, message_bytes, peak_bytes, timelines
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.profiler import keep_traces
from pipezoo.runtime.rank import run_rank
from pipezoo.runtime.rank_memory import forget_copies
from pipezoo.runtime.restore import check_origin
from pipezoo.runtime.start_method import start_method, target, with_transport
from pipezoo.simulator.bubble_causes import BubbleCauses, causes_of_simulation
from pipezoo.simulator.simulate import Simulation, simulate
from pipezoo.simulator.timeline import Timeline
from pipezoo.splitters._stage_modules import names_by_stage, stack_of
from pipezoo.supervisor.rendezvous_dir import rendezvous_dir
from pipezoo.supervisor.save_signal import came
from pipezoo.supervisor.supervisor import Handlers, Limits, launch
from pipezoo.supervisor.workers import Worker
from pipezoo.supervisor.world_host import hosted
from pipezoo.tasks.console import conclude, introduce, progress
from pipezoo.tasks.export import make_exports, write_exports, write_trained
from pipezoo.tasks.join import clock_doubt, hosting_pipeline, on_our_clock, other_workers, show_folder, wait_for_others
from pipezoo.tasks.terminal import PrintLine, print_timelines
from pipezoo.tasks.tracking import LOG as TRACKERS_LOG
from pipezoo.tasks.tracking import Trackers, check_trackers, tracking
from pipezoo.verify.verify import verify_run

LOG = "ranks.log"  # what the ranks print


def run(experiment: Experiment, folder: Path, print_line: PrintLine) -> dict[str, Any]:
    """Train, record, predict, verify, and write the files of a run into ``folder``.

    Returns:
        What stands in ``result.json``.

    Raises:
        PipezooError: whatever kept the run from a verified end; what was measured until then is in the folder.
    """
    with ExitStack() as stack:
        scratch = stack.enter_context(rendezvous_dir(folder))
        if (host := hosted()) is not None:
            show_folder(host, scratch)
        stack.callback(_drop_if_empty, folder / LOG)
        check_trackers(experiment.trackers)
        pipeline, sizes = build_pipeline(experiment, scratch, folder / FOLDER)
        exports = make_exports(experiment, _export_spec(pipeline, sizes)) if experiment.exports else {}
        write_schedule(folder, pipeline.schedule)
        method, why = start_method(experiment.launch.start_method)
        if host is None:
            pipeline = with_transport(pipeline, experiment, method)
        else:
            pipeline = hosting_pipeline(pipeline, experiment, host)
        introduce(experiment, pipeline, sizes, print_line)
        exported = write_exports(exports, folder, print_line)
        if pipeline.saved is not None:
            print_line(f"resume    from {pipeline.saved.path}, after {count(pipeline.saved.step, 'step')}")
            for words in check_origin(pipeline.saved, pipeline.origin):
                print_line(f"          {words}")
        if method == "spawn":
            print_line(
                f"          spawned, each builds its stages anew and maps their weights{f': {why}' if why else ''}"
            )

        described = _describe(experiment, pipeline, sizes)
        shown = _shown(experiment, described)
        tell = partial(_about_trackers, print_line)
        trackers = stack.enter_context(tracking(experiment.trackers, folder, shown, tell))
        steps, told = _train(experiment, pipeline, sizes, folder, method, print_line, trackers)
        write_trained(exports, pipeline, folder, print_line)
        for trace in keep_traces(pipeline.scratch, pipeline.num_processes, folder):
            print_line(f"profile   {trace}")
        measured = experiment.launch.timelines(timelines(pipeline), pipeline.schedule, message_bytes(pipeline))
        fields = _measure(experiment, sizes, steps, measured)
        cost = measured_cost(pipeline, measured, told, experiment.launch.p2p)
        predicted = simulate(pipeline.schedule, cost)
        causes = bubble_causes(pipeline, measured[-1], experiment.launch.p2p, num_cores())
        fields |= _compare(predicted, measured[-1], causes, _memory(told), fields["step_seconds"].median)
        clocks = {} if host is None else host.clocks
        save_timelines(folder, [predicted, *measured[-experiment.record_steps :]], cost, clocks)
        if host is not None and (doubt := clock_doubt(host, measured[-1])):
            print_line(f"clocks    {doubt}")
        print_timelines([predicted, measured[-1]], print_line)

        if experiment.verify:
            fields |= _verify(experiment, pipeline, steps, folder, method)
        status = "failed" if fields.get("verified") == "failed" else "ok"
        if pipeline.evaluation is not None:
            fields |= _evaluated(pipeline, pipeline.evaluation, steps, print_line)
        result = replace(described, **fields, export=exported or None, status=status)
        write_json(folder / RESULT, result.to_dict())
        conclude(result.to_dict(), print_line, pipeline.num_processes)
        if trackers is not None:
            trackers.end(result.to_dict())
    if result.verified == "failed":
        raise VerificationError(str(result.failure))
    return result.to_dict()


def _about_trackers(print_line: PrintLine, text: str) -> None:
    print_line(f"tracker   {text}; the run goes on, more in {TRACKERS_LOG}")


def _shown(experiment: Experiment, described: Result) -> dict[str, Any]:
    """What runs, for trackers: words of pipezoo, and numbers of the parts. A text may be a secret."""
    kinds = (int, float, bool, str)
    found = {name: value for name, value in described.to_dict().items() if isinstance(value, kinds)}
    for component in (experiment.model, experiment.data, experiment.optimizer):
        numbers = {name: value for name, value in component.arguments.items() if isinstance(value, (int, float))}
        found |= {f"{component.group}.{name}": value for name, value in numbers.items()}
    return found


def _export_spec(pipeline: Pipeline, sizes: Sizes) -> ExportSpec:
    stages, rows = pipeline.stages, sizes.batch_size // sizes.num_microbatches
    spec = ExportSpec(pipeline.schedule, rows, trains=True, averages=pipeline.recipe.ema is not None)
    try:
        modules = names_by_stage(stages.model, stages.modules)
    except ValueError as error:
        return replace(spec, unnamed=str(error))
    return replace(spec, modules=modules, blocks=stack_of(stages.model))


def _train(
    experiment: Experiment,
    pipeline: Pipeline,
    sizes: Sizes,
    folder: Path,
    method: str,
    print_line: PrintLine,
    trackers: Trackers | None,
) -> tuple[Steps, list[dict[str, Any]]]:
    """Run the ranks; their steps, and what each process of the first replica returned."""
    with ExitStack() as stack:
        metrics = stack.enter_context(MetricsFile(folder / METRICS))
        title = f"{experiment.model_name}, {experiment.schedule_name}, {count(sizes.num_ranks, 'rank')}"
        live = LivePage(folder, title, pipeline.steps, sizes.batch_size)
        bar = progress(stack, pipeline.steps, print_line)

        evaluations = [] if pipeline.saved is None else [*pipeline.saved.evaluations]

        def on_progress(step: int, loss: float, seconds: float, numbers: dict[str, float]) -> None:
            if NUMBER in numbers:
                evaluations.append((step + 1, numbers[NUMBER]))
            told = {"loss": loss, "seconds": seconds, **numbers}
            metrics.append({"step": step, **told})
            if trackers is not None:
                trackers.step(step, told)
            bar(step, loss)
            live.step(loss, seconds)

        names = pipeline.spread.names(experiment.launch.names(pipeline.pp))
        remote: dict[str, Worker] = {}
        if (host := hosted()) is not None:
            wait_for_others(host, pipeline, experiment.launch.start_timeout)
            names = host.names(names)
            print_line(f"world     {host.told(os.environ.get('GLOO_SOCKET_IFNAME', ''))}")
        steps = Steps(len(names), on_progress, {name: pipeline.place(i).dp for i, name in enumerate(names)})
        ranks = {
            name: target(partial(run_rank, process), pipeline, experiment, method) for process, name in enumerate(names)
        }
        actions = {name: pipeline.actions_of(process) for process, name in enumerate(names)}
        handlers = Handlers(
            save_at=partial(_save_at, pipeline, print_line),
            step=steps.on_message,
            look=live.look,
            failure=partial(write_json, folder / FAILURE),
        )
        if pipeline.checkpoints is not None:
            keeper = CheckpointWriter(
                pipeline.checkpoints,
                pipeline.pp,
                experiment.checkpoint.keep,
                pipeline.origin,
                evaluations,
                experiment.eval.best,
            )
            stack.callback(keeper.clear)
            handlers = replace(handlers, saved=keeper.on_message)
        forget_copies(pipeline.stages.model)
        try:
            if host is not None:
                remote = other_workers(host, names, pipeline, folder / LOG)
            results = launch(ranks, _limits(experiment), folder / LOG, actions, handlers, method, remote)
            if host is not None:
                on_our_clock(host, pipeline)
        except BaseException:
            losses = [losses[-1] for losses in steps.losses][: len(read_metrics(folder))]  # a signal comes between
            reached = replace(_describe(experiment, pipeline, sizes), losses=losses).to_dict()
            with suppress(OutputError, ConfigError):  # there is no folder any more
                write_json(folder / RESULT, read_result(folder) | reached)
            raise
    return steps, [results[names[process]] for process in pipeline.writers]


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


def _evaluated(pipeline: Pipeline, evaluation: Evaluation, steps: Steps, print_line: PrintLine) -> dict[str, Any]:
    """The fields of what the evaluations came to, and a line of it."""
    first = pipeline.steps_to_do.start
    found = [(first + i + 1, numbers[NUMBER]) for i, numbers in enumerate(steps.numbers) if NUMBER in numbers]
    history = evaluation.history([*(pipeline.saved.evaluations if pipeline.saved else []), *found])
    loss, step = history.best
    done = first + len(steps.losses)
    early = f"; ended early, after {count(done, 'step')}" if done < pipeline.steps else ""
    best = f"best {loss:.6g} after {count(step, 'step')}" if step else "none of them a number"
    print_line(f"evaluated {count(len(found), 'time')} on {count(evaluation.num_batches, 'batch')}: {best}{early}")
    told = {"evaluations": [{"steps": after, "loss": value} for after, value in found], "steps": done}
    return told | ({"best": {"steps": step, "loss": loss}} if step else {})


def _describe(experiment: Experiment, pipeline: Pipeline, sizes: Sizes) -> Result:
    """What ran."""
    return Result(
        task=experiment.task,
        model=experiment.model_name,
        schedule=experiment.schedule_name,
        split=experiment.split_name,
        data=experiment.data_name,
        optimizer=experiment.optimizer_name,
        loss=experiment.loss_name,
        launch=experiment.launch_name,
        mesh=experiment.mesh.told(),
        executor=experiment.executor_name,
        num_stages=sizes.num_stages,
        num_ranks=sizes.num_ranks,
        num_microbatches=sizes.num_microbatches,
        batch_size=sizes.batch_size,
        steps=experiment.steps,
        seed=experiment.seed,
        dtype=experiment.dtype,
        device=experiment.device,
        threads_per_process=pipeline.threads,
        emulated_cost=experiment.cost.choice if pipeline.emulated else None,
        derived=[*sizes.lines, *sizes.batch_lines],
        config_hash=experiment.config_hash,
        resumed={"from": str(saved.path), "step": saved.step} if (saved := pipeline.saved) else None,
        **provenance(),
    )


def _measure(experiment: Experiment, sizes: Sizes, steps: Steps, measured: list[Timeline]) -> dict[str, Any]:
    """The fields of what came out. The launch says which clock counts."""
    wall = steps.steady()
    seconds = experiment.launch.step_seconds(wall, measured)
    median = statistics.median(seconds)
    return {
        "losses": [losses[-1] for losses in steps.losses],
        "step_seconds": Spread(median=median, min=min(seconds), max=max(seconds)),
        "first_step_seconds": steps.seconds[0],
        "wall_step_seconds": statistics.median(wall),
        "samples_per_second": sizes.batch_size / median,
    }


def _compare(
    predicted: Simulation, measured: Timeline, causes: BubbleCauses, memory: Memory, step_seconds: float
) -> dict[str, Any]:
    """The fields that put the prediction from this run's own stage times beside what it measured."""
    told = predicted.result()
    error = told["step_seconds"] / step_seconds - 1.0
    return {
        "bubble": Bubbles(
            measured=Bubble(**measured.bubbles(), causes=Causes(**causes.summary())),
            predicted=Bubble(**told["bubble"], causes=Causes(**causes_of_simulation(predicted).summary())),
        ),
        "memory": replace(memory, predicted=told["peak_memory"]),
        "prediction": Prediction.of(told, step_error=error, cost=predicted.cost.to_dict()),
    }


def _memory(told: list[dict[str, Any]]) -> Memory:
    """What each rank kept for the backward, and what each process held."""
    private = [float(words["private"]) for words in told if words["private"] is not None]
    return Memory(measured=list(map(float, peak_bytes(told))), private=private or None)


def _verify(experiment: Experiment, pipeline: Pipeline, steps: Steps, folder: Path, method: str) -> dict[str, Any]:
    """The fields of the verdict."""
    judged = target(
        partial(verify_run, steps.losses, experiment.tolerance, numbers=steps.numbers), pipeline, experiment, method
    )
    handlers = Handlers(failure=partial(write_json, folder / FAILURE))
    limits = _limits(experiment, pipeline.num_processes)
    verdict = launch({"the reference": judged}, limits, folder / LOG, handlers=handlers, start_method=method)
    found = dict(verdict["the reference"])
    return {"first_difference": found.pop("first"), **found}


def _limits(experiment: Experiment, factor: int = 1) -> Limits:
    return Limits(experiment.launch.first_step_timeout * factor, experiment.launch.step_timeout * factor)


def _drop_if_empty(log: Path) -> None:
    if log.exists() and not log.stat().st_size:
        log.unlink()
