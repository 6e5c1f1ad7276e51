"""The table of plans for N devices, for a terminal and for a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipezoo.results.units import amount, time_text

if TYPE_CHECKING:
    from pipezoo.planner.devices.evaluate import Outcome
    from pipezoo.planner.devices.search import DevicePlans

COLUMNS = ("pp", "dp", "tp", "schedule", "v", "m", "rows", "recompute", "states", "step", "tokens/s", "TFLOP/s")
MORE = ("MFU", "idle", "memory", "order")
WIDTHS = (3, 5, 3, -17, 2, 5, 4, 9, -9, 9, 9, 8, 7, 7, 8, -8)  # a negative one: flush left
LEGEND = "v: stages on each rank, m: microbatches of a replica; idle: share of the step in which the busiest rank waits"
ASKED = {
    "memory": "need more memory than there is",
    "layers": "have layers that do not go up in stages",
    "batch": "have rows that do not go up in replicas x microbatches",
    "heads": "have heads that do not go up in shards",
    "devices": "do not multiply to the devices",
    "dp": "have another dp",
    "schedule": "are of no size of their schedule",
}


def row(plans: DevicePlans, outcome: Outcome) -> dict[str, Any]:
    """Plain numbers, for a file."""
    candidate, grid = outcome.candidate, outcome.candidate.grid
    return {
        "pp": grid.pp,
        "dp": grid.dp,
        "tp": grid.tp,
        "order": " ".join(grid.order),
        "schedule": candidate.schedule,
        "stages_per_rank": candidate.stages_per_rank,
        "num_microbatches": candidate.microbatches,
        "rows": candidate.rows,
        "recompute": "full" if candidate.recompute else "none",
        "dp_with": candidate.dp_with,
        "step_seconds": outcome.step,
        "tokens_per_second": plans.tokens_per_second(outcome),
        "flops_per_device": plans.flops(outcome),
        "mfu": plans.mfu(outcome),
        "idle": outcome.bubble,
        "memory": outcome.memory.total,
        **{f"memory_{name}": size for name, size in sorted(outcome.memory.parts().items())},
    }


def cells(plans: DevicePlans, outcome: Outcome) -> tuple[str, ...]:
    """One row, a text for each of ``COLUMNS`` and ``MORE``."""
    told = row(plans, outcome)
    whole = ("pp", "dp", "tp", "schedule", "stages_per_rank", "num_microbatches", "rows", "recompute", "dp_with")
    return (
        *(str(told[name]) for name in whole),
        time_text(outcome.step),
        f"{told['tokens_per_second']:,.0f}",
        f"{told['flops_per_device'] / 1e12:.0f}",
        f"{told['mfu']:.1%}",
        f"{told['idle']:.1%}",
        amount(told["memory"]),
        ",".join(outcome.candidate.grid.order),
    )


def lines(plans: DevicePlans) -> Iterator[str]:
    """The heading and the best rows, numbered."""
    yield f"    {_line((*COLUMNS, *MORE))}"
    for number, outcome in enumerate(plans.ranked[: plans.options.top], start=1):
        yield f"{number:3} {_line(cells(plans, outcome))}".rstrip()
    yield f"    {LEGEND}"


def excluded_lines(plans: DevicePlans) -> Iterator[str]:
    """Why the other combinations are none, the most frequent reason first."""
    for reason, number in plans.excluded.counts.most_common():
        yield f"excluded  {number:,} {ASKED[reason]}, like: {plans.excluded.examples[reason]}"


def memory_line(outcome: Outcome) -> str:
    """``memory    66.1 GB on rank 0: activations 35.8 GB, gradients ...``"""
    parts = ", ".join(f"{name} {amount(size)}" for name, size in outcome.memory.parts().items())
    return f"memory    {amount(outcome.memory.total)} on rank {outcome.rank}, the fullest: {parts}"


def _line(texts: tuple[str, ...]) -> str:
    return " ".join(
        f"{text:{'<' if width < 0 else '>'}{abs(width)}}" for text, width in zip(texts, WIDTHS, strict=True)
    )
