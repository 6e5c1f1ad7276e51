"""What if: other orders of the same work on the same ranks, at the costs that a run measured of its own stages.

    costs of 4 stages on 2 ranks --> every fixed schedule with 4 stages            as measured
                                 --> every fixed schedule with 2 stages            neighbours put together
                                 --> the run's own order, weight gradients moved

A prediction of another order is wrong by about as much as the prediction of the run's own was. So every step is scaled
by measured over predicted of the run, and its error bar is as wide as that error and the spread of the run's steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipezoo.planner.replace_weight_grads import replace_weight_grads
from pipezoo.results.result import Result
from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules import ZOO
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.cost_entries import BYTES_AND_OPTIMIZER, Floats
from pipezoo.simulator.simulate import Simulation, simulate

# Of a step, what another order differs by from its prediction though the run's own was right: waking up, caches, cores.
LEAST_ERROR = 0.08  # of real ranks (benchmarks.what_if)
LEAST_VIRTUAL_ERROR = 0.03  # of virtual ranks, whose clock leaves all of that out
MOST_ACTIONS = 200_000  # of an order that is tried; larger ones alone take seconds to make


@dataclass(frozen=True)
class Measured:
    """What a run says about its steps.

    Args:
        cost: of its stages.
        step: seconds of its median step.
        predicted: seconds that the simulator gives that step, from ``cost``.
        error: the relative width of an error bar on either side.
    """

    cost: Cost
    step: float
    predicted: float
    error: float

    @classmethod
    def of(cls, result: Result) -> Measured | None:
        """None where the run measured no step or knew no costs."""
        steps, prediction = result.step_seconds, result.prediction
        if steps is None or not steps.median or prediction is None or not prediction.step_seconds:
            return None
        if not prediction.cost:
            return None
        shortest = steps.median if steps.min is None else steps.min
        spread = (steps.median - shortest) / steps.median
        least = LEAST_VIRTUAL_ERROR if result.launch == "virtual" else LEAST_ERROR
        error = max(least, math.hypot(prediction.step_seconds / steps.median - 1.0, spread))
        return cls(Cost.from_dict(prediction.cost), steps.median, prediction.step_seconds, error)


@dataclass(frozen=True)
class Alternative:
    """One other order.

    Args:
        choice: what ``schedule=`` calls it, or "" for the run's own order with its weight gradients moved.
        order: the order itself.
        step: seconds of a step, as the run's own error scales the prediction.
        error: relative width of the error bar on either side.
        bubble: predicted, over the makespan.
        peak_memory: bytes on the fullest rank, predicted.
        assumed: what the run did not measure and is taken for granted, in words; "" where nothing is.
    """

    choice: str
    order: Schedule
    step: float
    error: float
    bubble: float
    peak_memory: float
    assumed: str

    @property
    def name(self) -> str:
        return self.choice or self.order.name

    @property
    def num_stages(self) -> int:
        return self.order.num_stages


def alternatives(schedule: Schedule, measured: Measured) -> list[Alternative]:
    """Other orders on the same ranks with the same microbatches, the fastest first.

    Args:
        schedule: that of the run, computations only.
        measured: what the run measured with it.
    """
    found = []
    for cost in _costs(measured.cost, schedule):
        halves, assumed = _with_halves(cost)
        for choice, order in _orders(schedule, cost.num_stages):
            splits = bool(((order.op == Op.I) | (order.op == Op.W)).any())
            line = simulate(order, halves if splits else cost)
            found.append(_alternative(choice, line, measured, assumed if splits else ""))
    if not np.isnan(measured.cost.seconds[:, (Op.I, Op.W)]).any():
        moved = replace_weight_grads(schedule, measured.cost, iterations=20)
        if moved.digest() != schedule.digest():
            found.append(_alternative("", simulate(moved, measured.cost), measured, ""))
    return sorted(found, key=lambda one: (round(one.step, 12), bool(one.assumed), one.num_stages, one.peak_memory))


def _alternative(choice: str, line: Simulation, measured: Measured, assumed: str) -> Alternative:
    return Alternative(
        choice=choice,
        order=line.schedule,
        step=line.step * measured.step / measured.predicted,
        error=measured.error,
        bubble=line.bubble,
        peak_memory=float(line.peak_memory.max(initial=0.0)),
        assumed=assumed,
    )


def _costs(cost: Cost, schedule: Schedule) -> Iterator[Cost]:
    """As measured, and with neighbouring stages put together, down to one stage a rank."""
    stages_per_rank = schedule.num_stages // schedule.num_ranks
    for together in range(1, stages_per_rank + 1):
        if stages_per_rank % together == 0 and schedule.num_stages % schedule.num_ranks == 0:
            yield _joined(cost.for_stages(schedule.num_stages), together)


def _joined(cost: Cost, together: int) -> Cost:
    """Every ``together`` neighbours as one stage."""

    def summed(values: Floats) -> Floats:
        joined: Floats = values.reshape(-1, together, *values.shape[1:]).sum(axis=1)
        return joined

    amounts: dict[str, Any] = {key: summed(getattr(cost, key)) for key in BYTES_AND_OPTIMIZER}
    amounts["output_bytes"] = cost.output_bytes[together - 1 :: together]
    return replace(cost, seconds=summed(cost.seconds), **amounts)


def _with_halves(cost: Cost) -> tuple[Cost, str]:
    """The same with I and W known; where the run split no backward, each is taken for half of it."""
    if not np.isnan(cost.seconds[:, (Op.I, Op.W)]).any():
        return cost, ""
    seconds = cost.seconds.copy()
    seconds[:, (Op.I, Op.W)] = seconds[:, (Op.B,)] / 2
    return replace(cost, seconds=seconds), "I and W take half of B each"


def _orders(schedule: Schedule, num_stages: int) -> Iterator[tuple[str, Schedule]]:
    """The fixed schedules of these sizes, each order once and not the run's own."""
    seen = {schedule.digest()}
    stages_per_rank = num_stages // schedule.num_ranks
    if schedule.num_actions > MOST_ACTIONS:
        return
    for choice in ZOO.names():
        try:
            order = ZOO[choice](schedule.num_ranks, schedule.num_microbatches, stages_per_rank=stages_per_rank)
            order = order.compute_only()
        except ValueError:
            continue
        if (digest := order.digest()) not in seen:
            seen.add(digest)
            yield choice, order
