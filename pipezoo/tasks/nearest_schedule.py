"""What an author wants to know of an order of their own: which fixed schedule is nearest, and what differs."""

from __future__ import annotations

from typing import Any

from pipezoo.experiment.experiment import Experiment
from pipezoo.results.units import bytes_text, time_text
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules import fixed_orders
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.nearest_schedule import NearestSchedule, nearest
from pipezoo.simulator.simulate import predict

ZOO = "pipezoo.schedules."
FROM_FILE = ZOO + "from_csv."
MOST_ACTIONS = 250_000  # beyond that the fixed schedules alone take many seconds to make
MOST_DIVERGENCES = 4  # ranks whose first difference is said; the file has all


def is_own(experiment: Experiment) -> bool:
    """Whether the schedule is the user's: from a file, or from a function outside the zoo."""
    target = experiment.schedule.target
    return target.startswith(FROM_FILE) or not target.startswith(ZOO)


def nearest_schedule(schedule: Schedule, cost: Cost, prediction: dict[str, Any]) -> dict[str, Any]:
    """The nearest fixed schedule and what differs, as plain values for ``result.json``; or why there is none."""
    if schedule.num_actions > MOST_ACTIONS:
        return {"schedule": None, "why": f"not looked for among more than {MOST_ACTIONS:,} actions"}
    stages_per_rank = schedule.num_stages // schedule.num_ranks
    others = fixed_orders(schedule.num_ranks, schedule.num_microbatches, max(1, stages_per_rank))
    found = nearest(schedule, others)
    if found is None:
        return {"schedule": None, "why": "no fixed schedule has these stages on these ranks"}
    return _described(found) | _compared(found.schedule, cost, prediction)


def _described(found: NearestSchedule) -> dict[str, Any]:
    divergences = [f"rank {p.rank}, action {p.at + 1}: {p.here}, there {p.there}" for p in found.divergences]
    return {
        "schedule": found.schedule.name,
        "distance": found.distance,
        "crossed": found.crossed,
        "pairs": found.pairs,
        "divergences": divergences,
    }


def _compared(schedule: Schedule, cost: Cost, prediction: dict[str, Any]) -> dict[str, Any]:
    """The other's numbers; none where these costs do not know its actions."""
    try:
        theirs = predict(schedule, cost)
    except ValueError:
        return {}
    return {
        "step_seconds": theirs["step_seconds"],
        "bubble": theirs["bubble"],
        "peak_memory": max(theirs["peak_memory"]),
        "step_ratio": prediction["step_seconds"] / theirs["step_seconds"] if theirs["step_seconds"] else None,
    }


def lines(found: dict[str, Any], prediction: dict[str, Any], unit: str) -> list[str]:
    """The same for people."""
    name = found["schedule"]
    if name is None:
        return [f"nearest   none: {found['why']}"]
    if not found["crossed"]:
        told = [f"nearest   {name}: the same order"]
    else:
        told = [
            f"nearest   {name}: of {found['pairs']:,} pairs of actions on a rank, {found['crossed']:,} "
            f"({_percent(found['distance'])}) run the other way round",
            f"          {_divergences(found)}",
        ]
    if "bubble" in found:
        told.append(f"          {_figures(found, prediction, unit)}")
    return told


def _divergences(found: dict[str, Any]) -> str:
    divergences = found["divergences"]
    more = len(divergences) - MOST_DIVERGENCES
    return f"first on {'; '.join(divergences[:MOST_DIVERGENCES])}" + (f"; and {more} more ranks" if more > 0 else "")


def _figures(found: dict[str, Any], prediction: dict[str, Any], unit: str) -> str:
    """``its step 10 units (yours 20.0 % longer), bubble 25.0 % (yours 40.0 %), memory 2 (yours 3)``"""
    bubble, own = found["bubble"]["makespan"], prediction["bubble"]["makespan"]
    memory = [
        f"{value:g}" if unit == "unit" else bytes_text(value)
        for value in (found["peak_memory"], max(prediction["peak_memory"]))
    ]
    return (
        f"its step {time_text(found['step_seconds'], unit)} (yours {_longer(found['step_ratio'])}), "
        f"bubble {_percent(bubble)} (yours {_percent(own)}), memory {memory[0]} (yours {memory[1]})"
    )


def _longer(ratio: float | None) -> str:
    if ratio is None or abs(ratio - 1) < 5e-5:
        return "the same"
    return f"{_percent(abs(ratio - 1))} {'longer' if ratio > 1 else 'shorter'}"


def _percent(share: float) -> str:
    """``12.5 %``; of what is small, two digits."""
    return f"{100 * share:.1f} %" if share >= 0.001 or not share else f"{100 * share:.2g} %"
