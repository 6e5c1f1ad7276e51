"""The costs of every stage of a model, measured: a short run of virtual ranks, half of whose backwards are split.

    one process      0F0 1F0 1B0 0B0    0F1 1F1 1I1 1W1 0I1 0W1    0F2 ...

Each action is timed alone, what autograd keeps counted in bytes. Medians over the microbatches of the steps after the
warm-up; the spread is that of the middle half. Full backwards and halves are both measured: I + W costs more than B.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from pipezoo.costs.profiled import Measuring
from pipezoo.experiment.component import Component
from pipezoo.experiment.experiment import Experiment
from pipezoo.launch import Virtual
from pipezoo.runtime.build import num_cores
from pipezoo.schedule.action import COMPUTE, Action, Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import P2P, Cost
from pipezoo.simulator.timeline import Timeline


def both_ways(num_ranks: int, num_microbatches: int) -> Schedule:
    """One stage a rank, one microbatch after the other; every other one has its backward split."""
    backward = ((Op.B,), (Op.I, Op.W))
    return Schedule.from_orders(
        [
            [Action(rank, op, k) for k in range(num_microbatches) for op in (Op.F, *backward[k % 2])]
            for rank in range(num_ranks)
        ],
        name="both_ways",
    )


def run_of(experiment: Experiment, measuring: Measuring, rows: int) -> Experiment:
    """The run that measures: as many virtual ranks as stages, ``rows`` in a microbatch, a real rank's threads."""
    return replace(
        experiment,
        task="train",
        schedule=Component("schedule", "both_ways", f"{__name__}.both_ways", given=("num_ranks", "num_microbatches")),
        launch=Virtual(threads=_threads(experiment)),
        launch_name="virtual",
        num_stages=measuring.num_stages,
        num_ranks=measuring.num_stages,
        num_microbatches=measuring.microbatches,
        batch_size=rows * measuring.microbatches,
        steps=measuring.all_steps,
        record_steps=measuring.steps,
        lr_schedule=None,  # its length is that of another run
        recipe=replace(experiment.recipe, accumulate=1),
        verify=False,
    )


def _threads(experiment: Experiment) -> int:
    """As many as a rank of the real run has."""
    return experiment.launch.threads_of(experiment.num_ranks or experiment.num_stages or 1, num_cores())


def cost_from(result: dict[str, Any], timelines: list[Timeline], p2p: P2P) -> tuple[Cost, dict[str, Any]]:
    """The costs of a run of :func:`run_of`, and the spread of every stage's times.

    Args:
        result: its ``result.json``.
        timelines: its measured timelines.
        p2p: what a message takes.

    Returns:
        The costs; and by stage and op the quartiles and the number of spans, in seconds.
    """
    cost = replace(Cost.from_dict(result["prediction"]["cost"]), p2p=p2p)
    return cost, {f"stage {stage}": _spread(timelines, stage) for stage in range(cost.num_stages)}


def _spread(timelines: list[Timeline], stage: int) -> dict[str, dict[str, float]]:
    found = {}
    for op in COMPUTE:
        took = np.concatenate([(t.end - t.start)[(t.stage == stage) & (t.op == op)] for t in timelines])
        low, middle, high = np.percentile(took, (25, 50, 75))
        found[op.name] = {"median": float(middle), "low": float(low), "high": float(high), "num_spans": int(took.size)}
    return found
