"""The costs of every stage of a model, measured: a short run of virtual ranks whose backwards are split.

    one process      0F0 1F0 2F0 2I0 2W0 1I0 ...        each action timed alone, what autograd keeps counted in bytes

Medians over the microbatches of the steps after the warm-up; the spread is that of the middle half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipezoo.action import COMPUTE, Op
from pipezoo.cost import Cost
from pipezoo.costs.measured import Measuring
from pipezoo.experiment import Experiment, Virtual
from pipezoo.parts.part import Part
from pipezoo.timeline import Timeline

Train = Callable[[Experiment, Path, Callable[[str], None]], dict[str, Any]]


def run_of(experiment: Experiment, measuring: Measuring) -> Experiment:
    """The run that measures: as many virtual ranks as stages, rows of a microbatch as in the experiment."""
    rows = None
    if experiment.batch_size is not None and experiment.num_microbatches is not None:
        rows = experiment.batch_size // experiment.num_microbatches * measuring.microbatches
    return replace(
        experiment,
        task="train",
        schedule=Part("schedule", "zb_h1", "pipezoo.schedules.zb_h1.zb_h1", given=("num_ranks", "num_microbatches")),
        launch=Virtual(latency=measuring.hop.latency, bandwidth=measuring.hop.bandwidth),
        launch_name="virtual",
        num_stages=measuring.num_stages,
        num_ranks=measuring.num_stages,
        num_microbatches=measuring.microbatches,
        batch_size=rows,
        steps=measuring.all_steps,
        record_steps=measuring.steps,
        verify=False,
    )


def cost_from(result: dict[str, Any], timelines: list[Timeline], measuring: Measuring) -> tuple[Cost, dict[str, Any]]:
    """The costs of a run of :func:`run_of`, and the spread of every stage's times.

    Args:
        result: its ``result.json``.
        timelines: its measured timelines.

    Returns:
        The costs; and by stage and op the quartiles and the number of spans, in seconds.
    """
    data = dict(result["prediction"]["cost"])
    data["hop"] = {"latency": measuring.hop.latency}
    if np.isfinite(measuring.hop.bandwidth):
        data["hop"]["bandwidth"] = measuring.hop.bandwidth
    stages = [{key: value for key, value in entry.items() if key != "B"} for entry in data["stages"]]
    return Cost.from_dict(data | {"stages": stages}), {
        f"stage {stage}": _spread(timelines, stage) for stage in range(measuring.num_stages)
    }


def _spread(timelines: list[Timeline], stage: int) -> dict[str, dict[str, float]]:
    found = {}
    for op in COMPUTE:
        took = np.concatenate([(t.end - t.start)[(t.stage == stage) & (t.op == op)] for t in timelines])
        if op != Op.B and took.size:
            low, middle, high = np.percentile(took, (25, 50, 75))
            spans = {"median": float(middle), "low": float(low), "high": float(high), "num_spans": int(took.size)}
            found[op.name] = spans
    return found
