"""The table of plans, for a terminal and for a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipezoo.results.units import amount, time_text

if TYPE_CHECKING:
    from pipezoo.planner.plans import Plan, Plans

COLUMNS = ("schedule", "v", "m", "step", "makespan", "span", "memory", "gap")
TIES = "Equal steps: the one that holds less memory comes first, then a fixed schedule before one that was made here."
WIDTHS = (-26, 2, 5, 10, 9, 7, 9, 7)  # a negative one: flush left


def cells(plan: Plan) -> tuple[str, ...]:
    """One row, a text for each of ``COLUMNS``; ``v`` stages on a rank, ``m`` microbatches."""
    bubble, unit = plan.prediction["bubble"], plan.cost.unit
    return (
        plan.name,
        str(plan.stages_per_rank),
        str(plan.schedule.num_microbatches),
        time_text(plan.step, unit),
        f"{bubble['makespan']:.2%}",
        f"{bubble['span']:.2%}",
        amount(plan.peak, "" if unit == "unit" else "B"),
        f"{plan.gap:.2%}",
    )


def lines(plans: Plans, top: int) -> Iterator[str]:
    """The heading and the best ``top`` rows, numbered."""
    yield f"    {_line(COLUMNS)}"
    for number, plan in enumerate(plans.ranked[:top], start=1):
        yield f"{number:3} {_line(cells(plan))}"


def _line(texts: tuple[str, ...]) -> str:
    return " ".join(
        f"{text:{'<' if width < 0 else '>'}{abs(width)}}" for text, width in zip(texts, WIDTHS, strict=True)
    )
