"""From plain values to the experiment that they describe (resolved.py, nodes.py). Nothing here knows of Hydra."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipezoo.config.nodes import component_of, loss_inputs_of, output_of, several, tensor_plan_of, weights_of
from pipezoo.config.resolved import GIVEN, OPTIONAL, ResolvedConfig
from pipezoo.errors import ConfigError
from pipezoo.experiment.component import Component
from pipezoo.experiment.derive import derive, resolve
from pipezoo.experiment.experiment import COUNTS, Experiment
from pipezoo.experiment.precision import Precision
from pipezoo.experiment.recipe import KEYS, recipe_of
from pipezoo.experiment.registry import conf_dir
from pipezoo.launch.mesh import Mesh

NO_SCHEDULE = "pipezoo.lr_schedules.constant.none"
WITH_MODEL = ("train", "verify")  # tasks that need every part; the others need a schedule and its cost
NOT_NUMBERS = (
    "task",
    "launch",
    "executor",
    "checkpoint",
    "eval",
    "profile",
    "cost",
    "plan",
    "topology",
    "verify",
    "tolerance",
    "record_steps",
    "objective",
    "on_nonfinite",
    "debug",
)


def build(resolved: ResolvedConfig) -> Experiment:
    """The experiment that a config describes. Imports no torch.

    Raises:
        ConfigError: one line. What only the code of a model or an optimizer can refuse, :func:`check_components` finds.
    """
    plain = dict(resolved.values)
    recipe, plain["optimizer"] = recipe_of(plain["optimizer"])
    weights = weights_of(plain)
    exports = several("export", plain.pop("export", {}), resolved)
    trackers = several("tracker", plain.pop("tracker", {}), resolved)
    groups = [*GIVEN, *(group for group in OPTIONAL if group in plain)]
    output, loss_inputs = output_of(plain, resolved), loss_inputs_of(plain, resolved)
    tensor_plan = tensor_plan_of(plain)
    components = {group: component_of(group, plain.pop(group), resolved) for group in groups}
    launch, checkpoint, fault = components.pop("launch"), components.pop("checkpoint"), components.pop("fault", None)
    if "lr_schedule" in components and (schedule := lr_schedule_of(components.pop("lr_schedule"))) is not None:
        components["lr_schedule"] = schedule
    precision, precision_name = _precision(components)
    mesh = _mesh(components)
    told = tensor_plan.told() if mesh.tp > 1 else None
    besides = _besides(
        recipe=recipe.told(), weights=weights, output=output, tensor_plan=told, loss_inputs=[*loss_inputs] or None
    )
    values: dict[str, Any] = {COUNTS.get(key, key): value for key, value in plain.items()}
    values |= components | {
        "launch": launch(),
        "launch_name": launch.choice,
        "recipe": recipe,
        "weights": weights,
        "output": output,
        "tensor_plan": tensor_plan,
        "loss_inputs": loss_inputs,
        "precision": precision,
        "mesh": mesh,
        "precision_name": precision_name,
        "config_hash": config_hash(plain | besides, components),
    }
    if "eval" in components:
        values["eval"] = components.pop("eval")()
    for group in ("profile", "topology"):
        if group in components:
            values[group] = components.pop(group)()
    values |= {"checkpoint": checkpoint(), "fault": fault and fault(), "exports": exports, "trackers": trackers}
    experiment = Experiment(**values)
    for component in (components["schedule"], components["cost"], *exports, *trackers):
        component.check()
    if experiment.task == "plan":
        components["plan"]()
    if experiment.task in WITH_MODEL:
        asked = derive(experiment)
        if asked.num_stages is not None:
            resolve(experiment, asked, asked.num_stages)
    return experiment


def _precision(components: dict[str, Component]) -> tuple[Precision, str]:
    """What ``precision`` came to, and its name; it stays among the components where it determines the numbers."""
    if "precision" not in components:
        return Precision(), "none"
    component = components.pop("precision")
    precision = component()
    if precision != Precision():
        components["precision"] = component
    return precision, component.choice


def _mesh(components: dict[str, Component]) -> Mesh:
    """The grid of processes; it stays among the components where it determines the numbers."""
    if "mesh" not in components:
        return Mesh()
    component = components.pop("mesh")
    mesh: Mesh = component()
    if not mesh.is_plain:
        components["mesh"] = component
    return mesh


def lr_schedule_of(component: Component) -> Component | None:
    """The schedule of the learning rate; its length is given by the run where nobody typed one."""
    if component.target == NO_SCHEDULE:
        return None
    choice = component.target.rpartition(".")[2] if component.choice == "none" else component.choice
    typed = {name: value for name, value in component.arguments.items() if (name, value) != ("updates", None)}
    given = ("optimizer",) if "updates" in typed else ("optimizer", "updates")
    return replace(component, choice=choice, arguments=typed, given=given)


def check_components(experiment: Experiment) -> None:
    """Look at the code of every part that the task needs. Imports torch for a task with a model; raises ConfigError."""
    if experiment.task in WITH_MODEL:
        for group in GIVEN:
            if isinstance(component := getattr(experiment, group), Component):
                component.check()
        if experiment.lr_schedule is not None:
            experiment.lr_schedule.check()
        if taken := [key for key in KEYS if experiment.optimizer.takes(key)]:
            raise ConfigError(
                f"optimizer._target_={experiment.optimizer.target}: has an argument {taken[0]}, which pipezoo reads "
                "itself for every optimizer; valid: an argument of another name"
            )


def _besides(**found: Any) -> dict[str, Any]:
    """What else determines the numbers; nothing where it is as it is by default, so that old hashes hold."""
    return {key: value for key, value in found.items() if value is not None and value != {}}


def config_hash(values: Mapping[str, Any], components: Mapping[str, Component]) -> str:
    """A hash of what determines the numbers of a run; the same for the same config in another checkout."""
    content = {key: value for key, value in values.items() if key not in NOT_NUMBERS}
    content |= {
        group: [component.target, component.arguments]
        for group, component in components.items()
        if group not in NOT_NUMBERS
    }
    text = json.dumps(content, sort_keys=True, default=str).replace(str(conf_dir()), "conf")
    return hashlib.sha256(text.encode()).hexdigest()
