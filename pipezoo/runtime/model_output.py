"""Which part of what a model returns is its output.

output: logits      model(ids)  ->  CausalLMOutput(logits=..., past_key_values=...)  ->  logits
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import CodeType
from typing import Any

import torch
from torch import nn

from pipezoo.errors import ConfigError, show
from pipezoo.runtime.trees import flatten
from pipezoo.validators import unknown


class OutputPart:
    """In the place of a model's ``forward``: takes what that takes, and returns a part of what that returns.

    Args:
        output: a field, key or index; dots lead inwards.
    """

    def __init__(self, forward: Any, output: str | int) -> None:
        self.forward, self.output = forward, output

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.forward)

    @property
    def __code__(self) -> CodeType:
        """For torch.export, which looks for what a forward is written in."""
        return OutputPart.__call__.__code__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return picked(self.forward(*args, **kwargs), self.output)


def with_output(model: nn.Module, output: str | int | None) -> nn.Module:
    """``model`` itself, which returns this part alone from now on; None: it stays as it is."""
    if output is not None:
        model.forward = OutputPart(model.forward, output)  # type: ignore[method-assign,assignment]
    return model


def picked(result: Any, output: str | int | None) -> Any:
    """A part of what a model returns. Raises ConfigError where there is no such part."""
    if output is None:
        return result
    value = result
    for part in [output] if isinstance(output, int) else output.split("."):
        found = _part(value, part)
        if found is None:
            listed = parts_of(value)
            why = unknown("part of what the model returns", str(part), listed) if listed else "has no parts"
            raise ConfigError(f"model.output={show(output)}: {_kind(value)}: {why}")
        value = found
    return value


def parts_of(value: Any) -> list[str]:
    """The words for :func:`picked` that lead to a tensor, or to what holds some."""
    if isinstance(value, Mapping):
        found = {str(key): inner for key, inner in value.items()}
    elif hasattr(value, "_fields"):
        found = {name: getattr(value, name) for name in value._fields}
    elif isinstance(value, (tuple, list)):
        found = {str(index): inner for index, inner in enumerate(value)}
    elif is_dataclass(value) and not isinstance(value, type):
        found = {field.name: getattr(value, field.name) for field in fields(value)}
    else:
        return []
    return [name for name, inner in found.items() if any(isinstance(leaf, torch.Tensor) for leaf in flatten(inner)[0])]


def check_output(result: Any, output: str | int | None, model: str) -> None:
    """Refuse an output that no loss of tensors can take. Raises ConfigError."""
    if output is not None or isinstance(result, (torch.Tensor, tuple, list)) or not (listed := parts_of(result)):
        return
    kept = ", ".join(f"model.output={name}" for name in listed)
    raise ConfigError(
        f"model.output=null: {model} returns a {_kind(result)}, and the loss takes a tensor; valid: {kept}"
    )


def _part(value: Any, part: str | int) -> Any:
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, (tuple, list)) and str(part).lstrip("-").isdigit():
        return value[int(part)] if -len(value) <= int(part) < len(value) else None
    return getattr(value, str(part), None) if str(part) in parts_of(value) else None


def _kind(value: Any) -> str:
    return type(value).__name__
