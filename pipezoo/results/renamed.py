"""What had another name before: code that committed files name, keys of configs, keys of costs.

    new_target("pipezoo.schedules.csv.csv")       -> "pipezoo.schedules.from_csv.from_csv"
    new_key("plan.budget")                        -> "plan.time_limit_s"
    with_new_cost_keys({"hop": {"latency": 0}})   -> {"p2p": {"latency": 0}}

A name that a person types is refused with the new one; what an old folder holds is read under the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TARGETS = {
    "pipezoo.experiment.Processes": "pipezoo.launch.Processes",
    "pipezoo.experiment.Virtual": "pipezoo.launch.Virtual",
    "pipezoo.experiment.Checkpoints": "pipezoo.experiment.experiment.CheckpointOptions",
    "pipezoo.planner.wishes.Wishes": "pipezoo.planner.options.PlanOptions",
    "pipezoo.costs.measured.measured": "pipezoo.costs.profiled.measured",
    "pipezoo.schedules.csv.csv": "pipezoo.schedules.from_csv.from_csv",
    "pipezoo.schedules.from_csv.csv": "pipezoo.schedules.from_csv.from_csv",
}
MODULES = {"pipezoo.runtime.faults": "pipezoo.runtime.fault_injection"}  # with all that is in them

KEYS = {
    "plan.budget": "plan.time_limit_s",
    "plan.moves": "plan.iterations",
    "plan.generate": "plan.search",
    "plan.rows": "plan.top",
    "plan.place_weights": "plan.place_weight_grads",
}
COST_KEYS = {
    "keeps": "activation_bytes",
    "I_frees": "freed_by_input_grad",
    "sends": "output_bytes",
    "hop": "p2p",
    "hop_in_node": "p2p_intra_node",
}


def new_target(target: str) -> str | None:
    """The name of today for a ``_target_`` of before; None where it was not renamed."""
    module, _, name = target.rpartition(".")
    return TARGETS.get(target) or (f"{MODULES[module]}.{name}" if module in MODULES else None)


def new_key(key: str) -> str | None:
    """The key of today for one of before, like ``plan.budget`` or ``cost.stages.keeps``; None where it stayed."""
    if key in KEYS:
        return KEYS[key]
    group, *names = key.split(".")
    new = [COST_KEYS.get(name, name) for name in names]
    return ".".join([group, *new]) if group == "cost" and new != names else None


def with_new_cost_keys(cost: Any) -> Any:
    """A dict of costs as it was written down, under the keys of today."""
    if isinstance(cost, list):
        return [with_new_cost_keys(entry) for entry in cost]
    if not isinstance(cost, dict):
        return cost
    return {COST_KEYS.get(key, key): with_new_cost_keys(value) for key, value in cost.items()}


def with_new_result_keys(result: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in a ``result.json``, its costs under the keys of today; ``result`` stays as it is."""
    new = {key: with_new_cost_keys(value) if key == "cost" else value for key, value in result.items()}
    if isinstance(prediction := new.get("prediction"), Mapping):
        new["prediction"] = {
            key: with_new_cost_keys(value) if key == "cost" else value for key, value in prediction.items()
        }
    return new
