"""What a config came to, in plain values, and the experiment that it describes. Nothing here knows of Hydra.

DictConfig  --config.resolved_config--> ResolvedConfig  --build-->  Experiment
                                     picklable: may be composed in one process and run in another
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipezoo.errors import ConfigError, show
from pipezoo.experiment.allowlist import BASES, Allowlist
from pipezoo.experiment.component import Component
from pipezoo.experiment.derive import derive, resolve
from pipezoo.experiment.experiment import COUNTS, Experiment
from pipezoo.experiment.precision import Precision
from pipezoo.experiment.recipe import KEYS, recipe_of
from pipezoo.experiment.registry import conf_dir
from pipezoo.experiment.tensor_plan import TensorPlan, plan_of
from pipezoo.launch.mesh import Mesh
from pipezoo.validators import unknown

# What the caller adds to each part's arguments, and the class that its target must be a subclass of.
GIVEN = {
    "model": (),
    "data": ("batch_size", "seed"),
    "split": ("model", "num_stages", "example"),
    "schedule": ("num_ranks", "num_microbatches"),
    "optimizer": ("params",),
    "loss": (),
    "executor": (),
    "cost": ("num_stages", "stages_per_rank"),
    "launch": (),
    "plan": (),
    "checkpoint": (),
}
OPTIONAL: dict[str, tuple[str, ...]] = {
    "fault": (),
    "export": ("spec",),
    "eval": (),
    "tracker": ("folder", "config"),
    "lr_schedule": ("optimizer",),
    "precision": (),
    "profile": (),
    "topology": (),
    "mesh": (),
}  # that may have no option chosen
NO_SCHEDULE = "pipezoo.lr_schedules.constant.none"
FACTORIES = ("lr_schedule",)  # groups whose target may be a function, so that what it makes is looked at
STAGES = "_stages_"  # key of a model that is told its number of stages: which of its arguments that is
SECRET = 4  # characters that a value from the environment has at least, to be looked for in what is printed
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


@dataclass(frozen=True)
class ResolvedConfig:
    """A config, resolved.

    Args:
        values: by key; those of a group are a dict with ``_target_``.
        choices: which option of each group was chosen, by group.
        trust: whose code may be named besides ours.
        sources: by group, the arguments that repeat another key of the config, with that key.
        shown: the values as they are written down: what came from the environment stands as it was typed.
    """

    values: Mapping[str, Any]
    choices: Mapping[str, Any] = field(default_factory=dict)
    trust: Allowlist = field(default_factory=Allowlist)
    sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> str:
        return str(self.values.get("task"))

    def hide(self, text: str) -> str:
        """``text`` with what came from the environment as it was typed."""
        for value, typed in _unlike(self.values, self.shown):
            text = text if "${conf_dir:}" in typed else text.replace(value, typed)
        return text


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


def weights_of(plain: dict[str, Any]) -> str | None:
    """The file at ``model.weights``, taken out of the model's node. What is no text is the model's own argument."""
    node = plain.get("model")
    if not isinstance(node, dict) or not isinstance(weights := node.get("weights"), (str, type(None))):
        return None
    plain["model"] = {key: value for key, value in node.items() if key != "weights"}
    if weights == "":
        raise ConfigError("model.weights='': must be a file or a folder, or null")
    return weights


def output_of(plain: dict[str, Any], resolved: ResolvedConfig) -> str | int | None:
    """The part of the output at ``model.output``, taken out of the model's node where it is no argument of its own."""
    node = plain.get("model")
    if not isinstance(node, dict) or "output" not in node:
        return None
    output, rest = node["output"], {key: value for key, value in node.items() if key != "output"}
    if output is not None and component_of("model", rest, resolved).takes("output"):
        return None
    plain["model"] = rest
    if output is not None and (isinstance(output, bool) or not isinstance(output, (str, int)) or output == ""):
        raise ConfigError(f"model.output={show(output)}: must be the name of a field, an index, or null")
    return output


def tensor_plan_of(plain: dict[str, Any]) -> TensorPlan:
    """The plan at ``model.tp``, taken out of the model's node. What has no keys is the model's own argument."""
    node = plain.get("model")
    if not isinstance(node, dict) or not isinstance(node.get("tp"), (dict, type(None))):
        return TensorPlan()
    plain["model"] = {key: value for key, value in node.items() if key != "tp"}
    return plan_of(node.get("tp"))


def loss_inputs_of(plain: dict[str, Any], resolved: ResolvedConfig) -> tuple[str, ...]:
    """The names at ``loss.inputs``, taken out of the loss's node where it is no argument of its own."""
    node = plain.get("loss")
    if not isinstance(node, dict) or "inputs" not in node:
        return ()
    names, rest = node["inputs"], {key: value for key, value in node.items() if key != "inputs"}
    if names is not None and component_of("loss", rest, resolved).takes("inputs"):
        return ()
    plain["loss"] = rest
    names = [names] if isinstance(names, str) else names or []
    if not isinstance(names, list) or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise ConfigError(f"loss.inputs={show(names)}: must be names of the model's inputs, as [attention_mask]")
    return tuple(names)


def component_of(group: str, node: Any, resolved: ResolvedConfig) -> Component:
    """The part that a node of the config describes."""
    choice = str(resolved.choices.get(group) or "?")
    if not isinstance(node, dict):
        raise ConfigError(f"{group}={show(node)}: must be an option of the group, chosen with {group}=")
    arguments = {str(name): value for name, value in node.items()}
    target = arguments.pop("_target_", None)
    if not isinstance(target, str):
        raise ConfigError(f"{group}._target_={show(target)}: must be the dotted name of a function or a class")
    told = arguments.pop(STAGES, "") if group == "model" else ""
    if told and told not in arguments:
        raise ConfigError(f"{group}.{STAGES}={show(told)}: {unknown('argument', str(told), arguments)}")
    role, given = "" if group in FACTORIES else BASES.get(group, ""), (GIVEN | OPTIONAL).get(group, ())
    sources = resolved.sources.get(group, {})
    return Component(group, choice, target, arguments, role, given, resolved.trust, sources, str(told))


def several(group: str, nodes: Any, resolved: ResolvedConfig) -> tuple[Component, ...]:
    """A part for each chosen option of a group of which there may be several."""
    if not isinstance(nodes, dict):
        raise ConfigError(f"{group}={show(nodes)}: must be options of the group, chosen with {group}=")
    components = []
    for name, node in nodes.items():
        sources = {key: f"{group}.{name}.{key}" for key in node} if isinstance(node, dict) else {}
        own = replace(resolved, choices={group: name}, sources={group: sources})
        components.append(component_of(group, node, own))
    return tuple(components)


def _unlike(values: Any, shown: Any) -> Iterator[tuple[str, str]]:
    """The texts that are not shown, and what is shown for them."""
    if isinstance(values, dict) and isinstance(shown, dict):
        for key in values:
            yield from _unlike(values[key], shown.get(key))
    elif isinstance(values, list) and isinstance(shown, list):
        for pair in zip(values, shown, strict=True):
            yield from _unlike(*pair)
    elif isinstance(values, str) and isinstance(shown, str) and values != shown and len(values) >= SECRET:
        yield values, shown


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
