"""Weight gradients of a given order moved: same F and I, so the same messages, and no more memory on any rank.

before     rank 1    F0 F1 B0--- F2 B1--- .            a full backward is an I with its W right behind it
after                F0 F1 I0 F2 I1 W0 W1              the gradient leaves before the weight gradient is done
"""

from __future__ import annotations

from pipezoo.planner.merge_backward import merge_backwards, time_before_merging
from pipezoo.planner.problem import Problem, items_of
from pipezoo.planner.search import Search
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.memory import peak_memory
from pipezoo.simulator.simulate import predict

WAYS = [(leeway, slack) for leeway in (0.0, 0.25, 0.5, 0.75, 1.0) for slack in (None, 0.0, 0.01, 0.02, 0.05)]
MOVES = 1000  # of ten weight gradients each, after all were placed


def replace_weight_grads(
    schedule: Schedule, cost: Cost, iterations: int = MOVES, seed: int = 0, deadline: float = float("inf")
) -> Schedule:
    """The schedule with its weight gradients where these costs want them; itself where that is not better.

    All are placed in one walk, in a few ways, and then moved one at a time. Where a full backward is cheaper than its
    halves, those stay whole that gain nothing by being split.

    Args:
        moves: afterwards, of ten single weight gradients each; fewer where the order is long; 0: none, which is linear.
        seed: of these moves.
        deadline: moment of ``time.monotonic`` at which the best so far is taken.

    Raises:
        ValueError: the costs do not know I and W, or are of another number of stages.
    """
    before = predict(schedule, cost)
    limit = tuple(peak_memory(schedule, cost).tolist())
    problem = Problem(cost, schedule.stage_to_rank, schedule.num_microbatches, limit)
    search = Search(problem, deadline=time_before_merging(cost, deadline))
    search.place(items_of(schedule), WAYS)
    if search.best is None:
        return schedule
    search.shift(iterations, seed)
    made = problem.schedule(search.best.orders, f"{schedule.name}, W moved")
    made = merge_backwards(made, cost, deadline)
    return made if predict(made, cost)["step_seconds"] < before["step_seconds"] * (1 - 1e-9) else schedule
