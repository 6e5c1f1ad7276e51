"""The rows of a plan's table, and their order."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipezoo.schedule.display import drawn
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import Simulation, predict, simulate


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """One row of the table.

    Args:
        name: of the schedule.
        made: ``fixed`` for a schedule of the zoo, ``moved`` for one with its weight gradients moved,
            ``planned`` for an order made here.
        bound: a makespan that no order of these stages beats in this memory.
        shared: whether all rows of the table run the same batch, in more or fewer microbatches; else every microbatch
            is of the same size, and a batch of more of them is larger.
    """

    name: str
    made: str
    schedule: Schedule
    cost: Cost
    prediction: dict[str, Any]
    bound: float
    shared: bool = False

    @property
    def stages_per_rank(self) -> int:
        return self.schedule.num_stages // self.schedule.num_ranks

    @property
    def step(self) -> float:
        return float(self.prediction["step_seconds"])

    @property
    def pace(self) -> float:
        """The time of what is alike in all rows: of the batch that they share, or else of a microbatch."""
        return self.step if self.shared else self.step / self.schedule.num_microbatches

    @property
    def span(self) -> float:
        return float(self.prediction["bubble"]["span"])

    @property
    def peak(self) -> float:
        return float(max(self.prediction["peak_memory"]))

    @property
    def gap(self) -> float:
        """How much longer its makespan is than the lower bound of its stages under the memory limit, as a share."""
        return float(self.prediction["makespan_seconds"] / self.bound - 1) if self.bound else 0.0

    @property
    def timeline(self) -> Simulation:
        """When every action runs, as it is predicted."""
        return simulate(self.schedule, self.cost)

    def __repr__(self) -> str:
        return f"Plan({self.name!r}, {self.made}, step {self.step:.6g} {self.cost.unit}, memory {self.peak:.6g})"

    def _repr_svg_(self) -> str:
        return drawn("timeline_svg", self.timeline)

    def row(self) -> dict[str, Any]:
        """Plain numbers, for a table or a file."""
        return {
            "schedule": self.name,
            "made": self.made,
            "stages_per_rank": self.stages_per_rank,
            "num_microbatches": self.schedule.num_microbatches,
            "step_seconds": self.step,
            "bubble": self.prediction["bubble"],
            "peak_memory": self.peak,
            "gap": self.gap,
        }


@dataclass(frozen=True, repr=False)
class Plans:
    """All that fit, best first; ``too_large`` counts the schedules that did not; ``notes`` say what was left out."""

    ranked: list[Plan]
    too_large: int
    notes: list[str]

    @property
    def best(self) -> Plan:
        """The first: the fastest that fits into memory."""
        return self.ranked[0]

    def table(self, top: int = 15) -> str:
        """The best ``top`` plans as text, a row each."""
        return drawn("plans_text", self, top)

    def __len__(self) -> int:
        return len(self.ranked)

    def __getitem__(self, place: int) -> Plan:
        return self.ranked[place]

    def __repr__(self) -> str:
        best = self.best
        return f"Plans({len(self)} that fit; best {best.name!r}, step {best.step:.6g} {best.cost.unit})"

    def _repr_html_(self) -> str:
        return drawn("plans_html", self)

    @property
    def best_fixed(self) -> Plan | None:
        """The best schedule of the zoo as it stands, if one fits."""
        return next((plan for plan in self.ranked if plan.made == "fixed"), None)


def plan(schedule: Schedule, made: str, cost: Cost, shared: bool, bound: float | None = None) -> Plan:
    """Play it, and make it a row; ``bound``: None where the one that holds for any memory is the best known."""
    prediction = predict(schedule, cost)
    if bound is None:
        bound = float(prediction["lower_bound"]["makespan_seconds"])
    return Plan(schedule.name, made, schedule, cost, prediction, bound, shared)


def ranked(plans: Iterable[Plan], objective: str, tie: float = 0.0) -> list[Plan]:
    """Best first: by pace, then memory, or by span; a fixed schedule before one made here that is no better.

    Args:
        tie: costs that were measured tell no smaller share apart. Of the plans that are so close to the best, and no
            slower than the best fixed schedule, those with fewer stages on a rank come first, then fixed schedules.
    """
    rows = sorted(plans, key=_by_span if objective == "span" else _by_pace)
    if not rows or not tie or objective == "span":
        return rows
    best_fixed = min((row.pace for row in rows if row.made == "fixed"), default=math.inf)
    close = [row for row in rows if row.pace <= min(best_fixed, rows[0].pace * (1 + tie))]
    return sorted(close, key=lambda row: (row.stages_per_rank, row.made != "fixed")) + rows[len(close) :]


def _by_pace(plan: Plan) -> tuple[float, float, bool]:
    return (round(plan.pace, 12), plan.peak, plan.made != "fixed")


def _by_span(plan: Plan) -> tuple[float, float, bool]:
    return (round(plan.span, 12), plan.pace, plan.made != "fixed")
