"""Train a pipeline for real, hold it against one device, and leave a folder: ``task=train`` and ``task=verify``."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipezoo.errors import VerificationError
from pipezoo.experiment.derive import Sizes
from pipezoo.experiment.experiment import Experiment
from pipezoo.exports.spec import Export, ExportSpec
from pipezoo.results.run_dir import FAILURE, RESULT, write_json
from pipezoo.results.schedule_file import write_schedule
from pipezoo.results.timeline_file import save_timelines
from pipezoo.results.units import count
from pipezoo.runtime.build import build_pipeline, num_cores
from pipezoo.runtime.checkpoint import FOLDER
from pipezoo.runtime.measurements import Steps, bubble_causes, measured_cost, message_bytes, timelines
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.profiler import keep_traces
from pipezoo.runtime.restore import check_origin
from pipezoo.runtime.start_method import start_method, target, with_transport
from pipezoo.simulator.simulate import simulate
from pipezoo.splitters._stage_modules import names_by_stage, stack_of
from pipezoo.supervisor.rendezvous_dir import rendezvous_dir
from pipezoo.supervisor.supervisor import Handlers, launch
from pipezoo.supervisor.world_host import hosted
from pipezoo.tasks.console import conclude, introduce
from pipezoo.tasks.export import make_exports, write_exports, write_trained
from pipezoo.tasks.join import clock_doubt, hosting_pipeline, show_folder
from pipezoo.tasks.terminal import PrintLine, print_timelines
from pipezoo.tasks.tracking import LOG as TRACKERS_LOG
from pipezoo.tasks.tracking import check_trackers, tracking
from pipezoo.tasks.train_ranks import LOG, Training, train_ranks
from pipezoo.tasks.train_result import (
    compared_fields,
    described,
    evaluated_fields,
    measured_fields,
    memory_of,
    shown_to_trackers,
)
from pipezoo.verify.verify import verify_run


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
        training, exports = _build(experiment, scratch, folder, print_line)
        pipeline = training.pipeline
        exported = _introduce(training, exports)
        ran = described(experiment, pipeline, training.sizes)  # the commit of a run is that of its beginning
        shown = shown_to_trackers(experiment, ran)
        tell = partial(_about_trackers, print_line)
        trackers = stack.enter_context(tracking(experiment.trackers, folder, shown, tell))
        steps, told = train_ranks(training, trackers)
        write_trained(exports, pipeline, folder, print_line)
        for trace in keep_traces(pipeline.scratch, pipeline.num_processes, folder):
            print_line(f"profile   {trace}")
        fields = _record_and_predict(training, steps, told)
        if experiment.verify:
            fields |= _verify(training, steps)
        status = "failed" if fields.get("verified") == "failed" else "ok"
        if pipeline.evaluation is not None:
            fields |= evaluated_fields(pipeline, pipeline.evaluation, steps, print_line)
        result = replace(ran, **fields, export=exported or None, status=status)
        write_json(folder / RESULT, result.to_dict())
        conclude(result.to_dict(), print_line, pipeline.num_processes)
        if trackers is not None:
            trackers.end(result.to_dict())
    if result.verified == "failed":
        raise VerificationError(str(result.failure))
    return result.to_dict()


def _build(
    experiment: Experiment, scratch: Path, folder: Path, print_line: PrintLine
) -> tuple[Training, dict[str, Export]]:
    """The run, ready to start, and what it is to export."""
    if (host := hosted()) is not None:
        show_folder(host, scratch)
    check_trackers(experiment.trackers)
    pipeline, sizes = build_pipeline(experiment, scratch, folder / FOLDER)
    exports = make_exports(experiment, _export_spec(pipeline, sizes)) if experiment.exports else {}
    write_schedule(folder, pipeline.schedule)
    method, why = start_method(experiment.launch.start_method)
    if host is None:
        pipeline = with_transport(pipeline, experiment, method)
    else:
        pipeline = hosting_pipeline(pipeline, experiment, host)
    return Training(experiment, pipeline, sizes, folder, method, why, print_line), exports


def _introduce(training: Training, exports: dict[str, Export]) -> dict[str, Any]:
    """Say what runs, write what can be exported before it does, and return what ``result.json`` says of that."""
    experiment, pipeline, print_line = training.experiment, training.pipeline, training.print_line
    introduce(experiment, pipeline, training.sizes, print_line)
    exported = write_exports(exports, training.folder, print_line)
    if pipeline.saved is not None:
        print_line(f"resume    from {pipeline.saved.path}, after {count(pipeline.saved.step, 'step')}")
        for words in check_origin(pipeline.saved, pipeline.origin):
            print_line(f"          {words}")
    if training.method == "spawn":
        why = f": {training.why_method}" if training.why_method else ""
        print_line(f"          spawned, each builds its stages anew and maps their weights{why}")
    return exported


def _about_trackers(print_line: PrintLine, text: str) -> None:
    print_line(f"tracker   {text}; the run goes on, more in {TRACKERS_LOG}")


def _export_spec(pipeline: Pipeline, sizes: Sizes) -> ExportSpec:
    stages, rows = pipeline.stages, sizes.batch_size // sizes.num_microbatches
    spec = ExportSpec(pipeline.schedule, rows, trains=True, averages=pipeline.recipe.ema is not None)
    try:
        modules = names_by_stage(stages.model, stages.modules)
    except ValueError as error:
        return replace(spec, unnamed=str(error))
    return replace(spec, modules=modules, blocks=stack_of(stages.model))


def _record_and_predict(training: Training, steps: Steps, told: list[dict[str, Any]]) -> dict[str, Any]:
    """Save and draw the measured timelines and the predicted one; the fields of both.

    Args:
        told: what each process of the first replica returned.
    """
    experiment, pipeline, host = training.experiment, training.pipeline, hosted()
    p2p = experiment.launch.p2p
    measured = experiment.launch.timelines(timelines(pipeline), pipeline.schedule, message_bytes(pipeline))
    fields = measured_fields(experiment, training.sizes, steps, measured)
    cost = measured_cost(pipeline, measured, told, p2p)
    predicted = simulate(pipeline.schedule, cost)
    causes = bubble_causes(pipeline, measured[-1], p2p, num_cores())
    fields |= compared_fields(predicted, measured[-1], causes, memory_of(told), fields["step_seconds"].median)
    clocks = {} if host is None else host.clocks
    save_timelines(training.folder, [predicted, *measured[-experiment.record_steps :]], cost, clocks)
    if host is not None and (doubt := clock_doubt(host, measured[-1])):
        training.print_line(f"clocks    {doubt}")
    print_timelines([predicted, measured[-1]], training.print_line)
    return fields


def _verify(training: Training, steps: Steps) -> dict[str, Any]:
    """The fields of the verdict."""
    experiment, pipeline, method = training.experiment, training.pipeline, training.method
    judged = target(
        partial(verify_run, steps.losses, experiment.tolerance, numbers=steps.numbers), pipeline, experiment, method
    )
    handlers = Handlers(failure=partial(write_json, training.folder / FAILURE))
    limits = training.limits(pipeline.num_processes)
    verdict = launch({"the reference": judged}, limits, training.log, handlers=handlers, start_method=method)
    found = dict(verdict["the reference"])
    return {"first_difference": found.pop("first"), **found}


def _drop_if_empty(log: Path) -> None:
    if log.exists() and not log.stat().st_size:
        log.unlink()
