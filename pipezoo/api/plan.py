"""``pz.plan``: the schedule for these costs, ranks and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipezoo.api.refusals import refusals
from pipezoo.costs.unit import unit
from pipezoo.errors import MISSING, ArgumentError
from pipezoo.planner.options import PlanOptions
from pipezoo.planner.plan import make_plans
from pipezoo.planner.plans import Plans
from pipezoo.simulator.cost import Cost
from pipezoo.validators import check_int

CostOf = Callable[[int, int, int], Cost]


def plan(
    *,
    ranks: int,
    microbatches: int | Sequence[int] = 8,
    cost: Cost | CostOf | None = None,
    memory: float | str | None = None,
    stages_per_rank: Sequence[int] = (1, 2),
    schedules: Sequence[str] | None = None,
    objective: str = "step",
    search: bool = True,
    place_weight_grads: bool = True,
    time_limit_s: float = 10.0,
    seed: int = 0,
    log: Callable[[str], None] | None = None,
) -> Plans:
    """Look at every fixed schedule, and make orders for these costs; the best that fit into memory, best first.

    Args:
        ranks: how many.
        microbatches: of a step, or the numbers to choose from; each microbatch is of the same size.
        cost: ``Cost(F=1, I=1, W=1)``: of one stage on each rank, of which ``v`` stages on a rank take a ``v``-th each.
            A cost with a number for each stage is of that many stages alone. Or a function ``(num_stages,
            stages_per_rank, num_microbatches) -> Cost``. None: equal stages, in units.
        memory: the most activations of a rank, in the unit of the costs: a number, or text like ``"12MB"``.
        stages_per_rank: the numbers to choose from.
        schedules: names of the fixed schedules to look at; None: all.
        objective: ``step``, or ``span`` for an optimizer without a barrier.
        search: whether orders are made, besides the fixed ones.
        place_weight_grads: whether fixed schedules are also tried with their weight gradients placed anew.
        time_limit_s: seconds of search.
        seed: of what the search draws by lot.
        log: is called with a line about every search.

    Returns:
        ``plans.best.schedule``, ``plans.table()``, ``plans.ranked``.

    Raises:
        ConfigError: no order fits, or an argument will not do.

    Example:
        >>> import pipezoo as pz
        >>> plans = pz.plan(ranks=2, microbatches=4, search=False, place_weight_grads=False)
        >>> plans.best
        Plan('interleaved_zero_bubble', fixed, step 12.5 unit, memory 2)
    """
    with refusals():
        check_int("ranks", ranks, 1)
        counts = (microbatches,) if isinstance(microbatches, int) else tuple(microbatches)
        options = PlanOptions(
            memory=memory,
            time_limit_s=time_limit_s,
            schedules=None if schedules is None else tuple(schedules),
            stages_per_rank=tuple(stages_per_rank),
            microbatches=counts,
            search=search,
            place_weight_grads=place_weight_grads,
            objective=objective,
        )
        return make_plans(_cost_of(cost), ranks, counts, options, log, seed=seed)


def _cost_of(cost: Cost | CostOf | None) -> CostOf:
    if cost is None:
        return lambda num_stages, per_rank, num_microbatches: unit(num_stages, per_rank)
    if not isinstance(cost, Cost):
        return cost
    if cost.for_every_stage:
        return lambda num_stages, per_rank, num_microbatches: cost.share(per_rank).for_stages(num_stages)

    def of_its_size(num_stages: int, per_rank: int, num_microbatches: int) -> Cost:
        if num_stages != cost.num_stages:
            raise ArgumentError("cost", MISSING, f"is of {cost.num_stages} stages, not of {num_stages}")
        return cost

    return of_its_size
