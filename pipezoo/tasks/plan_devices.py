"""``task=plan plan=devices``: how to use N devices for a transformer. Builds nothing, imports no torch.

sizes of the model, topology, memory -> table.csv       the best of each pp x dp x tp
                                        schedule.csv    the order of the winner, and its timeline
"""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.experiment.experiment import Experiment
from pipezoo.planner.devices.evaluate import Job
from pipezoo.planner.devices.options import DeviceOptions
from pipezoo.planner.devices.search import DevicePlans, make_device_plans
from pipezoo.report.device_table import excluded_lines, lines, memory_line, row
from pipezoo.results.provenance import provenance
from pipezoo.results.result import Causes, Result, Spread
from pipezoo.results.run_dir import RESULT, write_json, write_text
from pipezoo.results.sanitize import is_terminal
from pipezoo.results.schedule_file import write_schedule
from pipezoo.results.timeline_file import save_timelines
from pipezoo.results.units import amount
from pipezoo.simulator.bubble_causes import causes_of_simulation
from pipezoo.simulator.simulate import Simulation, simulate
from pipezoo.tasks.terminal import PrintLine
from pipezoo.topology.topology import Topology

TABLE = "table.csv"
MOST_ACTIONS = 200_000  # of a winner whose order is written down
MOST_SPANS = 20_000  # of one whose timeline is


def run(experiment: Experiment, options: DeviceOptions, folder: Path, print_line: PrintLine) -> dict[str, Any]:
    """Plan, and write the table and the winner into ``folder``.

    Returns:
        What stands in ``result.json``.

    Raises:
        ConfigError: no topology, or nothing divides or fits: which term is in the way, and what would do.
    """
    topology = experiment.topology
    if topology is None:
        raise ConfigError("topology=null: plan=devices needs to know what the devices are; valid: topology=h100")
    on_progress = print_line if is_terminal(sys.stdout) else None
    try:
        plans = make_device_plans(options, topology, on_progress)
    except ArgumentError as error:
        raise _spelled(error) from error
    _introduce(plans, topology, print_line)
    write_text(folder / TABLE, _csv(plans))
    for line in lines(plans):
        print_line(line)
    for line in excluded_lines(plans):
        print_line(line)
    simulation, left_out = _winner(plans, topology, folder)
    _conclude(plans, topology, print_line)
    if left_out:
        print_line(f"timeline  {left_out}")
    result = _result(experiment, plans, simulation).to_dict()
    write_json(folder / RESULT, result)
    return result


def _spelled(error: ArgumentError) -> ConfigError:
    """``devices`` is ``plan.devices``; what is said of the topology is a key of the topology."""
    keys = {"topology": "topology", "nodes": "topology.nodes"}
    return ConfigError(error.at(keys.get(error.argument, f"plan.{error.argument}")), error)


def _introduce(plans: DevicePlans, topology: Topology, print_line: PrintLine) -> None:
    options, model, device = plans.options, plans.options.model, topology.device
    assert device is not None
    nodes = -(-options.devices // topology.gpus_per_node)
    print_line(
        f"plan      {options.devices:,} devices on {nodes:,} nodes for {model.parameters / 1e9:.1f} B parameters: "
        f"{model.layers} layers, hidden {model.hidden}, {model.heads} heads"
    )
    print_line(
        f"batch     {options.global_batch:,} rows of {model.sequence:,} tokens, "
        f"{options.global_batch * model.sequence / 1e6:.3g} M tokens a step"
    )
    print_line(
        f"assumed   products reach {device.efficiency:.0%} of {device.flops / 1e12:.4g} TFLOP/s; hidden are "
        f"{options.tp_overlap:.0%} of the sums over shards, {options.dp_overlap:.0%} of those of gradients"
    )
    print_line(
        f"limit     {amount(options.limit(device.memory))} on a device, {options.reserve:.0%} left to the runtime; "
        f"{options.precision} and {options.optimizer}: {options.states.parameter} bytes a parameter, "
        f"{options.states.gradient} a gradient, {options.states.state} of states"
    )
    print_line(f"tried     {plans.num_candidates:,} combinations, {plans.num_played:,} of them simulated")
    print_line("")


def _winner(plans: DevicePlans, topology: Topology, folder: Path) -> tuple[Simulation | None, str]:
    """The winner's simulation where it is not too large, its order and its timeline in files."""
    job = Job(plans.best.candidate, plans.options, topology)
    schedule = job.schedule(plans.best.candidate.microbatches)
    if schedule.num_actions > MOST_ACTIONS:
        return None, f"not written: the winner has {schedule.num_actions:,} actions"
    write_schedule(folder, schedule)
    simulation = simulate(schedule, job.cost)
    if schedule.num_actions > MOST_SPANS:
        return simulation, f"not written: the winner has {schedule.num_actions:,} actions; schedule.csv has its order"
    return simulation, save_timelines(folder, [simulation], simulation.cost)


def _conclude(plans: DevicePlans, topology: Topology, print_line: PrintLine) -> None:
    best = plans.best
    job = Job(best.candidate, plans.options, topology)
    print_line(memory_line(best))
    route = max(job.placement.routes, key=lambda one: sum(one.classes(job.stage_to_rank).values()))
    told = ", ".join(f"{count} {name}" for name, count in route.classes(job.stage_to_rank).items()) or "none"
    print_line(f"links     messages between stages: {told}; shards: {job.placement.shards}")
    print_line(f"          replicas: {job.placement.replicas}")
    grid = best.candidate.grid
    with_ = f"mesh.dp_with={best.candidate.dp_with} " if grid.dp > 1 else ""
    print_line(
        f"best      ranks={grid.pp} mesh.dp={grid.dp} {with_}mesh.tp={grid.tp} mesh.order=[{','.join(grid.order)}] "
        f"schedule={best.candidate.schedule} microbatches={best.candidate.microbatches}"
    )


def _csv(plans: DevicePlans) -> str:
    out = io.StringIO()
    rows = [row(plans, outcome) for outcome in plans.ranked]
    writer = csv.DictWriter(out, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _result(experiment: Experiment, plans: DevicePlans, simulation: Simulation | None) -> Result:
    best = plans.best.candidate
    known = {
        "task": experiment.task,
        "schedule": best.schedule,
        "num_stages": best.num_stages,
        "num_ranks": best.grid.pp,
        "num_microbatches": best.microbatches,
        "batch_size": plans.options.global_batch,
        "time_unit": "s",
        "plans": [row(plans, outcome) for outcome in plans.ranked],
        "config_hash": experiment.config_hash,
        **provenance(),
    }
    if simulation is None:
        return Result(status="ok", step_seconds=Spread(median=plans.best.step), **known)
    causes = Causes(**causes_of_simulation(simulation).summary())
    return Result.predicted(simulation.result(), simulation.cost.to_dict(), causes, **known)
