"""Propose a schedule for these costs, ranks and memory: ``task=plan``.

Builds no model and imports no torch, unless costs are to be measured.

costs -> every fixed schedule, and orders made for them -> table.csv       all that fit, best first
                                                           schedule.csv    the winner
                                                           conf/experiment/planned.yaml   the run of it
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipezoo.errors import ConfigError
from pipezoo.experiment.component import Component
from pipezoo.experiment.derive import default_microbatches
from pipezoo.experiment.experiment import Experiment
from pipezoo.experiment.memory_limit import check_schedule_fits
from pipezoo.exports.spec import ExportSpec
from pipezoo.planner.devices.options import DeviceOptions
from pipezoo.planner.options import PlanOptions
from pipezoo.planner.plan import make_plans
from pipezoo.planner.plans import Plan, Plans
from pipezoo.report.plan_table import TIES, lines
from pipezoo.results.provenance import provenance
from pipezoo.results.result import Causes, Result
from pipezoo.results.run_dir import RESULT, write_json, write_text
from pipezoo.results.sanitize import is_terminal
from pipezoo.results.schedule_file import write_schedule
from pipezoo.results.timeline_file import save_timelines
from pipezoo.simulator.bubble_causes import causes_of_simulation
from pipezoo.simulator.simulate import simulate
from pipezoo.tasks import plan_devices
from pipezoo.tasks.export import make_exports, write_exports
from pipezoo.tasks.measure_costs import check_rows, costs_of, measures
from pipezoo.tasks.placement import placed_costs
from pipezoo.tasks.terminal import PrintLine, print_timelines

TABLE = "table.csv"
LEGEND = "v: stages on each rank, m: microbatches; makespan, span: the bubble of each; gap: to a bound of the makespan"
CONF = "conf"  # a config folder of its own: config.yaml of the run itself is none of it
EXPERIMENT = "planned"
UNNAMED = "task=plan builds no model; the run of its winner names the modules"
TIE = 0.005  # measured costs tell no smaller difference apart; more stages on a rank have costs that they leave out


def run(experiment: Experiment, folder: Path, print_line: PrintLine) -> dict[str, Any]:
    """Plan, write the table, the winner and an experiment that runs it into ``folder``.

    Returns:
        What stands in ``result.json``.

    Raises:
        ConfigError: nothing says how many ranks there are, no order fits into memory, or the costs are unusable.
    """
    options = experiment.plan()
    if isinstance(options, DeviceOptions):
        return plan_devices.run(experiment, options, folder, print_line)
    assert isinstance(options, PlanOptions)
    num_ranks = _num_ranks(experiment)
    counts = options.microbatches or (experiment.num_microbatches or default_microbatches(num_ranks),)
    for v, m in product(options.stages_per_rank, counts):
        check_schedule_fits(num_ranks * v, m, f"ranks={num_ranks}", is_simulated=True)
    check_rows(experiment, counts)
    _introduce(experiment, num_ranks, counts, options, print_line)
    on_progress = print_line if is_terminal(sys.stdout) else None
    try:
        shared = experiment.batch_size is not None
        tie = TIE if measures(experiment) else 0.0
        cost_of = placed_costs(experiment, costs_of(experiment, folder, print_line), num_ranks)
        plans = make_plans(cost_of, num_ranks, counts, options, on_progress, shared, experiment.seed, tie)
    except ConfigError:
        raise
    except ValueError as error:
        raise experiment.plan.reword(error) from error
    best = plans.ranked[0]
    write_text(folder / TABLE, _csv(plans))
    order = write_schedule(folder, best.schedule)
    (folder / CONF / "experiment").mkdir(parents=True, exist_ok=True)
    write_text(folder / CONF / "experiment" / f"{EXPERIMENT}.yaml", _experiment(experiment, best, order))
    timeline = simulate(best.schedule, best.cost)
    left_out = save_timelines(folder, [timeline], best.cost)
    _show(plans, options, best.cost.unit, print_line)
    print_timelines([timeline], print_line)
    if left_out:
        print_line(f"timeline  {left_out}")
    exports = make_exports(experiment, ExportSpec(best.schedule, unnamed=UNNAMED), is_known_early=False)
    exported = write_exports(exports, folder, print_line)
    result = replace(_result(experiment, plans), export=exported or None).to_dict()
    write_json(folder / RESULT, result)
    print_line(f"run it    python -m pipezoo --config-dir {_short(folder / CONF)} +experiment={EXPERIMENT}")
    return result


def _memory(options: PlanOptions) -> str:
    """As it was typed; a plain number is in the unit of the costs."""
    return f"{options.memory} (unit of the costs)" if isinstance(options.memory, (int, float)) else str(options.memory)


def _num_ranks(experiment: Experiment) -> int:
    if experiment.num_ranks is not None:
        return experiment.num_ranks
    if experiment.num_stages is not None:
        return experiment.num_stages
    raise ConfigError("ranks=null: task=plan plans for a number of ranks; give ranks=")


def _introduce(
    experiment: Experiment, num_ranks: int, counts: Sequence[int], options: PlanOptions, print_line: PrintLine
) -> None:
    limit = "no limit of memory" if options.memory is None else f"memory at most {_memory(options)} on a rank"
    print_line(
        f"plan      {num_ranks} ranks, {' or '.join(map(str, options.stages_per_rank))} stages on each, "
        f"{' or '.join(map(str, counts))} microbatches, {limit}"
    )
    print_line(f"cost      {experiment.cost.choice}; a search of {options.time_limit_s:g} s")


def _show(plans: Plans, options: PlanOptions, unit: str, print_line: PrintLine) -> None:
    several = len({plan.schedule.num_microbatches for plan in plans.ranked}) > 1
    print_line("")
    for line in lines(plans, options.top):
        print_line(line)
    print_line(f"    {LEGEND}")
    steps = [round(plan.step, 12) for plan in plans.ranked[: options.top]]
    if len(set(steps)) < len(steps) and options.objective == "step":
        print_line(f"    {TIES}")
    if (more := len(plans.ranked) - options.top) > 0:
        print_line(f"    and {more} more in {TABLE}")
    if plans.too_large:
        print_line(f"    {plans.too_large} fixed schedules need more memory")
    for note in plans.notes:
        print_line(f"    {note}")
    best, fixed = plans.ranked[0], plans.best_fixed
    if several and not best.shared:
        print_line("    ranked by the time of a microbatch: the rows of a batch grow with their number")
    if fixed is not None and fixed is not best:
        print_line(f"    {fixed.pace / best.pace:.3f} times as fast as {fixed.name}, the best fixed schedule")


def _csv(plans: Plans) -> str:
    out = io.StringIO()
    rows = [_flat(plan.row()) for plan in plans.ranked]
    writer = csv.DictWriter(out, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    bubble = row.pop("bubble")
    return row | {"makespan_bubble": bubble["makespan"], "span_bubble": bubble["span"]}


def _result(experiment: Experiment, plans: Plans) -> Result:
    best = plans.ranked[0]
    return Result.predicted(
        best.prediction,
        causes=Causes(**causes_of_simulation(simulate(best.schedule, best.cost)).summary()),
        task=experiment.task,
        schedule=best.name,
        num_stages=best.schedule.num_stages,
        num_ranks=best.schedule.num_ranks,
        num_microbatches=best.schedule.num_microbatches,
        time_unit=best.cost.unit,
        plans=[plan.row() for plan in plans.ranked],
        cost_name=experiment.cost.choice,
        cost=best.cost.to_dict(),
        derived=plans.notes,
        config_hash=experiment.config_hash,
        **provenance(),
    )


def _experiment(experiment: Experiment, best: Plan, order: Path) -> str:
    """The YAML of a run of the winner: the same model, data and so on, its order from the file ``order``."""
    groups = {
        component.group: component
        for component in (experiment.data, experiment.split, experiment.loss, experiment.optimizer)
    }
    groups["model"] = experiment.model
    data: dict[str, Any] = {
        "defaults": [{f"override /{group}": component.choice} for group, component in groups.items()]
        + [{"override /schedule": "csv"}],
        "schedule": {"file": str(_short(order))},
        "stages": best.schedule.num_stages,
        "ranks": best.schedule.num_ranks,
        "microbatches": best.schedule.num_microbatches,
    }
    if experiment.batch_size is not None and experiment.batch_size % best.schedule.num_microbatches == 0:
        data["batch_size"] = experiment.batch_size
    arguments = {group: _arguments(component, best) for group, component in groups.items()}
    arguments["optimizer"] |= experiment.recipe.told()
    data |= {group: values for group, values in arguments.items() if values}
    text = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=100)
    return f"# @package _global_\n# {best.name}: made by task=plan, predicted step {best.step:.6g}\n{text}"


def _arguments(component: Component, best: Plan) -> dict[str, Any]:
    """The part's arguments as composed; a number of stages among them follows the plan."""
    arguments = dict(component.arguments)
    if component.stages_argument in arguments:
        arguments[component.stages_argument] = best.schedule.num_stages
    return arguments


def _short(path: Path) -> Path:
    """Relative to where we are, if it is below: such a path can be committed."""
    here = Path(os.path.realpath(os.getcwd()))
    real = Path(os.path.realpath(path))
    return real.relative_to(here) if real.is_relative_to(here) else real
