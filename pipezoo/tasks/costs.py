"""The costs that a task plays with: from the config, or measured here and now and left in the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipezoo.cost import Cost
from pipezoo.costs.measured import Measuring
from pipezoo.errors import ConfigError
from pipezoo.experiment import Experiment
from pipezoo.report.folder import TIMELINE, write_text

Say = Callable[[str], None]


def costs_of(experiment: Experiment, folder: Path, say: Say) -> Callable[[int, int], Cost]:
    """A function ``(num_stages, stages_per_rank) -> Cost``; what it measures, it measures once.

    The function raises ConfigError for costs that cannot be had.
    """
    measured: dict[int, Cost] = {}

    def cost_of(num_stages: int, stages_per_rank: int) -> Cost:
        found = experiment.cost(num_stages=num_stages, stages_per_rank=stages_per_rank)
        if isinstance(found, Measuring):
            if num_stages not in measured:
                measured[num_stages] = _measure(experiment, found, folder, say)
            return measured[num_stages]
        if not isinstance(found, Cost):
            raise ConfigError(f"cost={experiment.cost.choice}: {experiment.cost.target} made a {type(found).__name__}")
        return found

    return cost_of


def _measure(experiment: Experiment, measuring: Measuring, folder: Path, say: Say) -> Cost:
    """Run the stages, and write what they cost, and how sure that is, as a cost file."""
    from pipezoo.report.perfetto import read_timelines
    from pipezoo.runtime.profile import cost_from, run_of
    from pipezoo.tasks.train import run as train

    inner = folder / f"measured-{measuring.num_stages}"
    inner.mkdir()
    result = train(run_of(experiment, measuring), inner, lambda line: None)
    timelines = [timeline for timeline in read_timelines(inner / TIMELINE) if timeline.source == "measured"]
    cost, spread = cost_from(result, timelines, measuring)
    name = f"cost-{measuring.num_stages}.yaml"
    write_text(folder / name, _file(cost, spread))
    middle = [op["high"] / op["low"] - 1 for ops in spread.values() for op in ops.values() if op["low"] > 1e-5]
    say(
        f"measured  {measuring.num_stages} stages in {measuring.steps} steps of {measuring.microbatches} microbatches: "
        f"{name}; the middle half of a time spreads by {100 * sorted(middle)[len(middle) // 2]:.0f} %"
    )
    return cost


def _file(cost: Cost, spread: dict[str, Any]) -> str:
    """A cost file, with the spread of the times as comments."""
    lines = ["# Medians of measured times in seconds, and bytes; quartiles of the times:"]
    for stage, ops in spread.items():
        cells = [f"{name} {op['low']:.3g}..{op['high']:.3g} ({op['num_spans']})" for name, op in ops.items()]
        lines.append(f"#   {stage}: {', '.join(cells)}")
    return "\n".join(lines) + "\n" + str(yaml.safe_dump(cost.to_dict(), sort_keys=False))
