"""The nodes of a config: each describes a part, and some hold keys that pipezoo reads itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipezoo.config.resolved import GIVEN, OPTIONAL, ResolvedConfig
from pipezoo.errors import ConfigError, show
from pipezoo.experiment.allowlist import BASES
from pipezoo.experiment.component import Component
from pipezoo.experiment.tensor_plan import TensorPlan, plan_of
from pipezoo.validators import unknown

FACTORIES = ("lr_schedule",)  # groups whose target may be a function, so that what it makes is looked at
STAGES = "_stages_"  # key of a model that is told its number of stages: which of its arguments that is


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
