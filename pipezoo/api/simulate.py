"""``pz.simulate``: when every action of a schedule runs, and what the ranks hold."""

from __future__ import annotations

from pipezoo.api.refusals import refusals
from pipezoo.costs.unit import unit
from pipezoo.errors import ArgumentError
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator import simulate as simulator
from pipezoo.simulator.cost import Cost


def simulate(schedule: Schedule, cost: Cost | None = None) -> simulator.Simulation:
    """Predict a step of a schedule: a timeline that knows what made it.

    Args:
        schedule: the order; messages in it are left out, for those of ``cost`` stand for them.
        cost: seconds and bytes of every stage; where one stage stands for all (``Cost(F=1, I=1, W=0.5)``), of as many
            as the schedule has. None: F, I and W of a rank's share of the model take 1 unit each, messages nothing,
            and the activations of a microbatch on a rank count 1.

    Returns:
        ``makespan`` and ``step`` in the unit of the costs, ``bubble`` and ``span_bubble`` in [0, 1), ``peak_memory``
        ``[num_ranks]`` in bytes (rank-microbatches where cost is None), ``critical_path``, ``lower_bound`` of the
        makespan of any order; the spans as arrays ``rank stage op microbatch start end`` ``[num_actions]``.

    Raises:
        ConfigError: the cost has another number of stages, or does not know an op that the schedule uses.

    Example:
        >>> import pipezoo as pz
        >>> timeline = pz.simulate(pz.schedules["1f1b"](2, 4))
        >>> timeline.makespan, round(timeline.bubble, 3), timeline.peak_memory.tolist()
        (15.0, 0.2, [2.0, 1.0])
        >>> pz.simulate(pz.schedules.zbv(4, 8), pz.Cost(F=1, I=1, W=0.5, p2p=0.1))
        Timeline(predicted, 4 ranks, 192 spans, makespan 44.6 s, bubble 10.3%)
    """
    with refusals():
        if not isinstance(schedule, Schedule):
            raise ArgumentError("schedule", schedule, f"is of type {type(schedule).__name__}", "a Schedule")
        if cost is None:
            cost = unit(schedule.num_stages, max(1, schedule.num_stages // schedule.num_ranks))
        return simulator.simulate(schedule, cost)
