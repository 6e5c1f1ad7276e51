"""What a training run says to the person in front of it: what runs, how far it is, what came out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from pipezoo.experiment.derive import Sizes
from pipezoo.experiment.experiment import Experiment
from pipezoo.launch.launch import Machine
from pipezoo.results.bubble import sentence
from pipezoo.results.sanitize import is_terminal
from pipezoo.results.units import bytes_text, count
from pipezoo.runtime.build import num_cores
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.tensor_parallel import Cuts
from pipezoo.schedule.action import Op
from pipezoo.tasks.terminal import PrintLine, silent
from pipezoo.verify.verify import is_followed

ROUNDING = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 5e-2}  # what sums in another order come to


def introduce(experiment: Experiment, pipeline: Pipeline, sizes: Sizes, print_line: PrintLine) -> None:
    """The start-up lines: every number, those that nobody typed included."""
    stages = pipeline.stages
    counts = [sum(p.numel() for p in stages.parameters(stage).values()) for stage in range(sizes.num_stages)]
    spread = f"{counts[0]:,}" if len(set(counts)) == 1 else f"{min(counts):,} to {max(counts):,}"
    used = {name for names in stages.names for name in names.values()}
    unused = sum(name not in used for name, _ in stages.model.named_parameters())
    rows = sizes.batch_size // sizes.num_slices
    print_line(
        f"model     {experiment.model_name}: {count(sizes.num_stages, 'stage')} by split={experiment.split_name}, "
        f"{spread} parameters in each" + (f"; {count(unused, 'tensor')} that forward does not use" if unused else "")
    )
    print_line(
        f"schedule  {experiment.schedule_name}: {count(sizes.num_stages, 'stage')} "
        f"on {count(sizes.num_ranks, 'rank')}, {count(sizes.num_microbatches, 'microbatch')} of {count(rows, 'row')}"
    )
    for words in getattr(stages.modules[0], "lost_in_trace", ()):
        print_line(f"trace     {words}")
    if derived := (*sizes.lines, *sizes.batch_lines):
        print_line(f"derived   {', '.join(derived)}")
    if pipeline.drawing is not None:
        print_line(
            f"random    {_drawn(pipeline.drawing.modules)} by counter: the same for every split, schedule and launch"
        )
    if not pipeline.executor.keeps_bits:
        print_line("compile   in the first step, which alone is compared: an optimizer makes rounding large")
        if any(pipeline.schedule.microbatches_in_order(stage, Op.I) for stage in range(sizes.num_stages)):
            print_line(
                "          I runs the whole backward of a stage, and W adds up what it put down: W fills no bubble"
            )
    if pipeline.defers:
        print_line(f"weights   {_deferred(pipeline, experiment.schedule_name)}")
    emulated = "" if pipeline.emulated is None else f"cost={experiment.cost.choice}"
    machine = Machine(
        sizes.num_ranks,
        pipeline.num_processes,
        pipeline.threads,
        num_cores(),
        experiment.device,
        pipeline.transport.name if pipeline.transport else "",
        emulated,
    )
    if not pipeline.spread.is_plain:
        print_line(f"mesh      {pipeline.spread.describe(pipeline.pp)}")
    if pipeline.cuts is not None:
        print_line(f"parts     {_parts(pipeline, pipeline.cuts, experiment.optimizer_name)}")
    elif not pipeline.mesh.is_plain:
        print_line(f"mesh      {count(pipeline.mesh.dp, 'replica')}, one after the other in one process")
    steps = f"{experiment.steps} steps of {experiment.optimizer_name}, executor={experiment.executor_name}"
    print_line(f"launch    {experiment.launch.describe(machine)}; {steps}")


def _deferred(pipeline: Pipeline, schedule: str) -> str:
    """Where W runs products of layers. The first stage has no input gradient, and all of its backward in W."""
    split = [stage for stage in range(pipeline.stages.num_stages) if pipeline.defers_on(stage)]
    if not split:
        return f"nothing is deferred: schedule={schedule} splits no backward of a stage that hands a gradient back"
    return f"products of layers run in W, on {len(split)} of {count(pipeline.stages.num_stages, 'stage')}"


def _drawn(modules: Sequence[tuple[str, str]]) -> str:
    """Who draws: ``blocks.0.drop (Dropout) and 3 more draw``"""
    names = [f"{name} ({kind})" if name and kind else kind or name for name, kind in modules]
    return f"{names[0]} and {len(names) - 1} more draw" if len(names) > 1 else f"{names[0]} draws"


def progress(stack: ExitStack, total: int, print_line: PrintLine) -> Callable[[int, float], None]:
    """A bar with the loss, called with step and loss, where a person looks; nothing in a pipe."""
    if print_line is silent or not is_terminal(sys.stderr):
        return lambda step, loss: None
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]}"))
    shown = Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)  # no thread: we fork
    bar = stack.enter_context(shown)
    task = bar.add_task("training", total=total, loss="-")
    return lambda step, loss: bar.update(task, completed=step + 1, loss=f"{loss:.4g}", refresh=True)


def conclude(result: dict[str, Any], print_line: PrintLine, num_processes: int) -> None:
    """Loss, time, bubble, memory, and the verdict."""
    seconds, losses = result["step_seconds"]["median"], result["losses"]
    error, peaks = result["prediction"]["step_error"], result["memory"]["measured"]
    emulated = result.get("emulated_cost")
    source = f"cost={emulated}" if emulated else "the measured stages"
    print_line(f"loss      {losses[0]:.6g} -> {losses[-1]:.6g} in {count(len(losses), 'step')}")
    print_line(
        f"step      {seconds * 1e3:.1f} ms, {result['samples_per_second']:.0f} samples/s; "
        f"predicted from {source} {(1 + error) * 1e2:.0f} % of that"
    )
    _explain(result, print_line, num_processes)
    print_line(f"memory    at most {bytes_text(max(peaks))} of activations on a rank")
    if result["verified"] in ("exact", "close"):
        print_line(f"verified  {_verdict(result)}")


def _explain(result: dict[str, Any], print_line: PrintLine, num_processes: int) -> None:
    """What the bubble is made of; and where ranks share cores, what shows the pipeline without that."""
    bubble, cores = result["bubble"]["measured"], num_cores()
    shared = result["device"] == "cpu" and num_processes > cores and not result.get("emulated_cost")
    slowed = f"{count(num_processes, 'rank')} share {count(cores, 'core')}" if shared else ""
    print_line(f"bubble    {sentence(bubble['makespan'], bubble['causes'], slowed)}")
    if shared:
        print_line("          launch=virtual times the pipeline as if each rank had a core of its own")


def _verdict(result: dict[str, Any]) -> str:
    tensors = count(result["num_compared"], "tensor")
    beside = _beside(result.get("full_batch_difference"), result["dtype"])
    dp = (result.get("mesh") or {}).get("dp", 1)
    in_turn = f" that trains the {dp} shares of the batch one after the other" if dp > 1 else ""
    if result["verified"] == "exact":
        return f"exact: {tensors} equal to one device's{in_turn}, bit for bit{beside}"
    difference, tolerance = result["max_relative_difference"], result["tolerance"]
    return f"close: {tensors} within {difference:.2g} of one device's{in_turn} (tolerance {tolerance:g}){beside}"


def _beside(whole: float | None, dtype: str) -> str:
    """The second statement: how far microbatches are from the whole batch. It is about the model, not the pipeline."""
    if not whole:
        return ""
    why = "" if whole <= ROUNDING[dtype] else ", as its rows act on each other or its sums are coarse"
    return f"; the whole batch in one piece differs by {whole:.1g}{why}"


def _parts(pipeline: Pipeline, cuts: Cuts, optimizer: str) -> str:
    """How many layers are cut, and what that does to the verdict."""
    layers = count(len(cuts.layers), "layer")
    after = "" if is_followed(pipeline) else f"; {optimizer} makes rounding large, so the first step alone is compared"
    return f"{layers} cut in {cuts.size} by model.tp; they add in another order, so the verdict is close{after}"
