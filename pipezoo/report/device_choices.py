"""The table of a plan for N devices on its page: rows to sort, and step over memory with the Pareto front."""

from __future__ import annotations

from typing import Any

from pipezoo.report.chart import scatter_chart
from pipezoo.report.choices import MOST_ROWS, pareto
from pipezoo.results.run import Run
from pipezoo.results.sweep_table import number
from pipezoo.results.units import amount, time_text

COLUMNS = {
    "pp": "ranks",
    "dp": "replicas",
    "tp": "shards",
    "order": "order on the nodes",
    "schedule": "schedule",
    "stages_per_rank": "stages on a rank",
    "num_microbatches": "microbatches",
    "rows": "rows of one",
    "recompute": "recomputed",
    "dp_with": "states",
    "step_seconds": "step",
    "tokens_per_second": "tokens a second",
    "mfu": "MFU",
    "idle": "idle",
    "memory": "memory of a device",
    "memory_parameters": "parameters",
    "memory_gradients": "gradients",
    "memory_optimizer": "states of the optimizer",
    "memory_activations": "activations",
}


def device_table(run: Run) -> dict[str, Any] | None:
    """As :func:`pipezoo.report.choices.plan_table`; None for anything but a plan for N devices."""
    plans = [plan for plan in run.result.get("plans") or () if isinstance(plan, dict) and "tp" in plan]
    points = [(number(plan.get("memory")), number(plan.get("step_seconds"))) for plan in plans[:MOST_ROWS]]
    known = [(memory, step, at) for at, (memory, step) in enumerate(points) if memory is not None and step is not None]
    if run.result.get("task") != "plan" or not known:
        return None
    front = {known[i][2] for i in pareto([(step, memory) for memory, step, _ in known])}
    dots = [(memory / 1e9, step, _name(plans[at]), at in front) for memory, step, at in known]
    best = plans[0]
    words = {
        "ranks": "pp",
        "mesh.dp": "dp",
        "mesh.tp": "tp",
        "schedule": "schedule",
        "microbatches": "num_microbatches",
    }
    return {
        "columns": ["place", *COLUMNS.values()],
        "rows": [_cells(at, plans[at], at in front) for _, _, at in known],
        "chart": scatter_chart(dots, "step in seconds over memory of the fullest device in GB"),
        "caption": "step, s, over memory of the fullest device, GB; joined: no other has less of both",
        "run_it": " ".join(f"{key}={best.get(name)}" for key, name in words.items()),
        "faster": "",
        "note": "Each row is the best of its ranks x replicas x shards.",
    }


def _name(plan: dict[str, Any]) -> str:
    return f"{plan.get('pp')} x {plan.get('dp')} x {plan.get('tp')} {plan.get('schedule')}"


def _cells(place: int, plan: dict[str, Any], on_front: bool) -> list[dict[str, Any]]:
    cells = [{"text": f"{place + 1}{' *' if on_front else ''}", "value": place + 1, "is_number": True}]
    for key in COLUMNS:
        value = number(plan.get(key))
        if value is None:
            cells.append({"text": str(plan.get(key, "")), "value": str(plan.get(key, "")), "is_number": False})
        else:
            cells.append({"text": _text(key, value), "value": value, "is_number": True})
    return cells


def _text(key: str, value: float) -> str:
    if key.startswith("memory"):
        return amount(value)
    if key in ("mfu", "idle"):
        return f"{value:.1%}"
    return time_text(value) if key == "step_seconds" else f"{value:,.0f}"
