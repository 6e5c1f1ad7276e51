"""The model as it is before the first step, for processes that share no memory with the one that built it.

    parent    model, built and tried out ──► start.pt                              written once
    rank      constructor on the device meta ──► names and shapes, no memory
              start.pt, mapped               ──► values; a page is read when it is used, private when it is written

A constructor that does not work without memory (it looks at a value, keeps a tensor beside its parameters) is run as it
is, and its values are let go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

FILE = "start.pt"


def leave_start(model: nn.Module, path: Path) -> None:
    """Write parameters and buffers by name."""
    torch.save({name: tensor.detach() for name, tensor in _named(model).items()}, path)


def model_at_start(make: Callable[[], nn.Module], path: Path) -> nn.Module:
    """The model that ``make`` makes, with the values of a file, which it maps."""
    values: dict[str, torch.Tensor] = torch.load(path, weights_only=True, mmap=True)
    if (model := _without_memory(make, values)) is not None:
        return model
    model = make()
    for name, tensor in _named(model).items():
        tensor.data = values[name]
    return model


def _without_memory(make: Callable[[], nn.Module], values: Mapping[str, torch.Tensor]) -> nn.Module | None:
    """The model, had its constructor never drawn a number; None where it cannot be made so."""
    try:
        with torch.device("meta"):
            model = make()
    except Exception:  # it wanted to see a value
        return None
    own = _named(model)
    if {name: _form(t) for name, t in own.items()} != {name: _form(t) for name, t in values.items()}:
        return None
    filled = {id(tensor): _like(tensor, values[name]) for name, tensor in own.items()}
    if any(tensor is None for tensor in filled.values()):
        return None
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = filled[id(tensor)]  # type: ignore[assignment]
    return None if any(map(_is_empty, _attributes(model))) else model


def _like(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor | None:
    """``value`` in the place of a parameter or buffer; None for one that is more than that."""
    if isinstance(tensor, nn.Parameter):
        plain = type(tensor) is nn.Parameter
        if not plain or tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None):
            return None
        return nn.Parameter(value, requires_grad=tensor.requires_grad)
    return value if type(tensor) is torch.Tensor else None


def _attributes(model: nn.Module) -> Iterator[Any]:
    """What modules keep beside parameters and buffers, containers opened."""
    for module in model.modules():
        stack = [value for name, value in vars(module).items() if name not in ("_parameters", "_buffers", "_modules")]
        while stack:
            value = stack.pop()
            if isinstance(value, dict):
                stack += value.values()
            elif isinstance(value, (list, tuple, set)):
                stack += value
            else:
                yield value


def _is_empty(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_meta


def _named(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict([*model.named_parameters(), *model.named_buffers()])


def _form(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.dtype
