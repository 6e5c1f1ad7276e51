"""Predict a pipeline without training it: ``task=simulate``. Builds no model and imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipezoo.errors import ConfigError
from pipezoo.experiment.derive import Sizes, derive, resolve
from pipezoo.experiment.experiment import Experiment
from pipezoo.exports.spec import ExportSpec
from pipezoo.results.bubble import sentence
from pipezoo.results.provenance import provenance
from pipezoo.results.result import Causes, Result
from pipezoo.results.run_dir import RESULT, write_json
from pipezoo.results.schedule_file import write_schedule
from pipezoo.results.timeline_file import save_timelines
from pipezoo.results.units import time_text
from pipezoo.simulator.bubble_causes import causes_of_simulation
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.critical_path import Leg
from pipezoo.simulator.simulate import simulate
from pipezoo.tasks.export import make_exports, write_exports
from pipezoo.tasks.measure_costs import costs_of
from pipezoo.tasks.nearest_schedule import is_own, lines, nearest_schedule
from pipezoo.tasks.placement import place
from pipezoo.tasks.terminal import PrintLine, print_timelines, write_picture

UNNAMED = "task=simulate builds no model; task=train and task=verify name its modules"
ENDS = 3  # legs of the critical path that are shown at either end


def run(experiment: Experiment, folder: Path, print_line: PrintLine) -> dict[str, Any]:
    """Play the schedule on the clock at the costs given, and write the files of a run into ``folder``.

    Returns:
        What stands in ``result.json``.

    Raises:
        ConfigError: nothing says how many stages there are, or schedule and cost do not fit.
    """
    sizes = _sizes(experiment)
    exports = make_exports(experiment, ExportSpec(sizes.schedule, unnamed=UNNAMED))
    cost_of = costs_of(experiment, folder, print_line)
    cost = cost_of(sizes.num_stages, max(1, sizes.stages_per_rank), sizes.num_microbatches)
    try:
        placed = place(experiment, sizes.schedule, cost)
        simulation = simulate(sizes.schedule, cost) if placed is None else placed.simulation
    except ValueError as error:
        raise experiment.cost.reword(error) from error
    cost = simulation.cost
    prediction = simulation.result()
    causes = causes_of_simulation(simulation).summary()
    result = _result(experiment, sizes, cost, prediction, Causes(**causes))
    nearest = nearest_schedule(sizes.schedule, cost, prediction) if (own := is_own(experiment)) else None
    write_schedule(folder, sizes.schedule)
    left_out = save_timelines(folder, [simulation], cost)
    _introduce(experiment, sizes, cost, own, print_line)
    exported = write_exports(exports, folder, print_line)
    where = None if placed is None else placed.result()
    result = replace(result, nearest=nearest, export=exported or None, timeline=left_out or None, placement=where)
    write_json(folder / RESULT, result.to_dict())
    if left_out.startswith("not written"):
        write_picture(folder, [simulation])
    for line in () if placed is None else placed.lines():
        print_line(line)
    print_timelines([simulation], print_line)
    _conclude(prediction, cost.unit, print_line)
    print_line(f"bubble    {sentence(prediction['bubble']['makespan'], causes)}")
    print_line(f"path      {_trail(simulation.critical_path.legs())}")
    for line in lines(nearest, prediction, cost.unit) if nearest else ():
        print_line(line)
    if left_out:
        print_line(f"timeline  {left_out}")
    return result.to_dict()


def _sizes(experiment: Experiment) -> Sizes:
    asked = derive(experiment)
    num_stages = asked.num_stages or experiment.model.stages_told
    if num_stages is None:
        raise ConfigError("stages=null: task=simulate builds no model that could tell; give stages= or ranks=")
    return resolve(experiment, asked, num_stages)


def _result(experiment: Experiment, sizes: Sizes, cost: Cost, told: dict[str, Any], causes: Causes) -> Result:
    return Result.predicted(
        told,
        cost.to_dict(),
        causes,
        task=experiment.task,
        schedule=experiment.schedule_name,
        num_stages=sizes.num_stages,
        num_ranks=sizes.num_ranks,
        num_microbatches=sizes.num_microbatches,
        time_unit=cost.unit,
        cost_name=experiment.cost.choice,
        derived=[*sizes.lines, *cost.derived],
        config_hash=experiment.config_hash,
        **provenance(),
    )


def _introduce(experiment: Experiment, sizes: Sizes, cost: Cost, own: bool, print_line: PrintLine) -> None:
    print_line(
        f"schedule  {experiment.schedule_name}: {sizes.num_stages} stages on {sizes.num_ranks} ranks, "
        f"{sizes.num_microbatches} microbatches, {sizes.schedule.num_actions:,} actions"
    )
    if own:
        print_line(
            "legal     every action is there once, nothing runs before what it needs, and no rank waits for ever"
        )
    print_line(f"cost      {'; '.join([experiment.cost.choice, *cost.derived])}")
    if sizes.lines:
        print_line(f"derived   {', '.join(sizes.lines)}")


def _conclude(prediction: dict[str, Any], unit: str, print_line: PrintLine) -> None:
    bound, path = prediction["lower_bound"], prediction["critical_path"]
    memory = prediction["peak_memory"]
    optimizer = prediction["step_seconds"] - prediction["makespan_seconds"]
    print_line(
        f"step      {time_text(prediction['step_seconds'], unit)}"
        + (f", {time_text(optimizer, unit)} of it after the last backward" if optimizer > 0 else "")
    )
    print_line(
        f"bound     no order of this work has a makespan below {time_text(bound['makespan_seconds'], unit)}, "
        f"a bubble of {100 * bound['bubble']:.1f} %: gap {100 * prediction['gap']:.1f} points"
    )
    if any(memory):
        most, what = memory.index(max(memory)), "rank-microbatches" if unit == "unit" else "bytes"
        print_line(
            f"memory    {max(memory):.6g} {what} at the peak of rank {most}, {min(memory):.6g} where it is least"
        )
    by_op = ", ".join(f"{op} {time_text(value, unit)}" for op, value in path["compute_seconds_by_op"].items())
    print_line(
        f"critical  {path['num_actions']} actions ({by_op}) and {path['num_messages']} messages "
        f"({time_text(path['message_seconds'], unit)})"
    )


def _trail(legs: Sequence[Leg]) -> str:
    """``0F0 > 1F0 > ... > 7F0 .. 7B63 (rank 7, 128 actions, 90 %) > ... > 0B63``: both ends and the longest leg."""
    whole = sum(leg.compute for leg in legs) or 1.0
    longest = max(range(len(legs)), key=lambda at: legs[at].compute)
    chosen = sorted({*range(ENDS), longest, *range(len(legs) - ENDS, len(legs))} & {*range(len(legs))})
    words = []
    for before, at in zip([-1, *chosen], chosen, strict=False):
        leg = legs[at]
        several = f" .. {leg.last} (rank {leg.rank}, {leg.num_actions} actions, {100 * leg.compute / whole:.0f} %)"
        words += ["..."] * (at > before + 1) + [f"{leg.first}{several if leg.num_actions > 1 else ''}"]
    return " > ".join(words)
