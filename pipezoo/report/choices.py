"""Tables of orders to choose from: the candidates of a plan, and what other orders would take in place of a run's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pipezoo.explain.changes import of_alternative
from pipezoo.explain.of_run import quickly_explained
from pipezoo.report.chart import scatter_chart
from pipezoo.report.plan_table import TIES
from pipezoo.results.run import Run
from pipezoo.results.sweep_table import inner, number
from pipezoo.results.units import amount, time_text

MOST_ROWS = 300  # of a plan on its page; table.csv has all


def plan_table(run: Run) -> dict[str, Any] | None:
    """The candidates of a plan: rows to sort, step over memory with the Pareto front, and the line that runs the best.

    Returns:
        ``columns``, ``rows`` (lists of ``text`` and ``value``), ``chart``, ``run_it``, ``faster``, ``note``; None for
        anything but a plan.
    """
    plans = [plan for plan in run.result.get("plans") or () if isinstance(plan, dict)]
    rows = [row for plan in plans[:MOST_ROWS] if (row := _row(plan)) is not None]
    if run.result.get("task") != "plan" or not rows:
        return None
    front = pareto([(row["step"], row["memory"]) for row in rows])
    points = [(row["memory"], row["step"], row["name"], i in front) for i, row in enumerate(rows)]
    unit = "ms" if run.unit == "s" else "units"
    scaled = [(x, 1e3 * y if run.unit == "s" else y, name, on) for x, y, name, on in points]
    table = [[_cell(i, row, key, run.unit, i in front) for key in KEYS] for i, row in enumerate(rows)]
    return {
        "columns": list(KEYS.values()),
        "rows": table,
        "chart": scatter_chart(scaled, f"step in {unit} over peak memory of a rank in {_memory_unit(run)}"),
        "caption": f"step, {unit}, over peak memory of a rank, {_memory_unit(run)}; joined: no other has less of both",
        "run_it": f"python -m pipezoo --config-dir {run.folder}/conf +experiment=planned",
        "faster": _faster(rows),
        "note": TIES + (f" {len(plans) - MOST_ROWS} more rows are in table.csv." if len(plans) > MOST_ROWS else ""),
    }


def what_if(run: Run) -> list[dict[str, str]]:
    """What other orders are predicted to take in place of a measured run's own, the fastest first; or nothing."""
    known = quickly_explained(run)
    if known is None:
        return []
    return [
        {
            "name": one.name,
            "stages": str(one.num_stages),
            "step": f"{time_text(one.step)} ± {time_text(one.step * one.error)}",
            "against": f"{100 * (one.step / known.measured.step - 1):+.0f} %",
            "bubble": f"{100 * one.bubble:.1f} %",
            "memory": amount(one.peak_memory),
            "assumed": one.assumed,
            "command": of_alternative(run, one),
        }
        for one in known.found
    ]


def pareto(points: Sequence[tuple[float, float]]) -> set[int]:
    """The points that no other one beats in one number without losing in the other."""
    front, least = set(), math.inf
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        if points[i][1] < least:
            least = points[i][1]
            front.add(i)
    return front


KEYS = {
    "place": "place",
    "name": "schedule",
    "made": "made",
    "v": "stages on a rank",
    "m": "microbatches",
    "step": "step",
    "bubble": "bubble of the makespan",
    "span": "of the span",
    "memory": "peak memory",
    "gap": "gap to the bound",
}


def _row(plan: dict[str, Any]) -> dict[str, Any] | None:
    step, memory = number(plan.get("step_seconds")), number(plan.get("peak_memory"))
    if step is None or memory is None:
        return None
    return {
        "name": str(plan.get("schedule")),
        "made": str(plan.get("made", "")),
        "v": number(plan.get("stages_per_rank")) or 0,
        "m": number(plan.get("num_microbatches")) or 0,
        "step": step,
        "bubble": number(inner(plan, "bubble", "makespan")) or 0.0,
        "span": number(inner(plan, "bubble", "span")) or 0.0,
        "memory": memory,
        "gap": number(plan.get("gap")) or 0.0,
    }


def _cell(place: int, row: dict[str, Any], key: str, unit: str, on_front: bool) -> dict[str, Any]:
    if key == "place":
        return {"text": f"{place + 1}{' *' if on_front else ''}", "value": place + 1, "is_number": True}
    value = row[key]
    text = {
        "step": lambda: time_text(value, unit),
        "memory": lambda: amount(value, "B" if unit == "s" else ""),
        "v": lambda: f"{value:.0f}",
        "m": lambda: f"{value:.0f}",
    }.get(key, lambda: value if isinstance(value, str) else f"{100 * value:.2f} %")()
    return {"text": text, "value": value, "is_number": not isinstance(value, str)}


def _faster(rows: Sequence[dict[str, Any]]) -> str:
    best, fixed = rows[0], next((row for row in rows if row["made"] == "fixed"), None)
    if fixed is None or fixed is best or not best["step"]:
        return ""
    pace = (fixed["step"] / fixed["m"]) / (best["step"] / best["m"]) if fixed["m"] and best["m"] else 1.0
    return f"{pace:.3f} times as fast as {fixed['name']}, the best fixed schedule."


def _memory_unit(run: Run) -> str:
    return "bytes" if run.unit == "s" else "rank-microbatches"
