"""Going on from a checkpoint: its values into a model, an optimizer, the random numbers of a process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from pipezoo.errors import ConfigError, show
from pipezoo.runtime.checkpoint import CANNOT_RESUME, Checkpoint
from pipezoo.runtime.optimizer_state import CannotRestoreError, names_of, restore
from pipezoo.runtime.random_state import set_random_of_libraries


def check_origin(saved: Checkpoint, origin: Mapping[str, Any]) -> list[str]:
    """Refuse a checkpoint of another model; what else made other numbers is returned, in words.

    Raises:
        ConfigError: the model has another class or other arguments, or nothing can go on from what was saved.
    """
    if why := saved.origin.get(CANNOT_RESUME):
        raise ConfigError(f"resume={saved.path}: holds values to read, not to go on from: {why}")
    comparable = {key for key in {*saved.origin, *origin} if {key.partition(".")[0]} <= saved.origin.keys() & origin}
    differing = [key for key in sorted(comparable) if saved.origin.get(key) != origin.get(key)]
    words = {key: f"{key}={_shown(origin.get(key))} here, {_shown(saved.origin.get(key))} there" for key in differing}
    for key in differing:
        if key.partition(".")[0] == "model" or key == "dtype":
            raise ConfigError(f"resume={saved.path}: is of another model: {words[key]}")
        if key.partition(".")[0] == "lr_schedule":
            raise ConfigError(f"resume={saved.path}: is of another schedule of the learning rate: {words[key]}")
    return [words[key] for key in differing]


def _shown(value: Any) -> str:
    return "another text" if isinstance(value, str) and value.startswith("sha256:") else show(value)


def restore_model(model: nn.Module, saved: Checkpoint) -> nn.Module:
    """Give a model the saved values. Raises ConfigError where it is not the model that was saved."""
    own = dict([*model.named_parameters(), *model.named_buffers()])
    for name in sorted({*own, *saved.model}):
        if name not in saved.model or name not in own:
            whose = "the checkpoint has no" if name in own else "the model has no"
            raise ConfigError(f"resume={saved.path}: is of another model: {whose} {name}")
        ours, theirs = own[name], saved.model[name]
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            words = [f"{tuple(tensor.shape)} {str(tensor.dtype)[6:]}" for tensor in (ours, theirs)]
            raise ConfigError(f"resume={saved.path}: is of another model: {name} is {words[0]}, there {words[1]}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved.model[name])
    return model


def restore_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Iterable[tuple[str, nn.Parameter]], saved: Checkpoint
) -> None:
    """Have an optimizer go on where those of the checkpoint ended.

    Raises:
        ConfigError: it is another kind of optimizer, or what was saved is of no use for these parameters.
    """
    try:
        restore(optimizer, names_of(parameters), [part for part in saved.optimizers if part is not None])
    except CannotRestoreError as error:
        raise ConfigError(f"resume={saved.path}: {error}") from error


def restore_random(process: int, num_processes: int, saved: Checkpoint) -> None:
    """Go on with the random numbers of this process, where as many processes wrote the checkpoint."""
    if len(saved.random) != num_processes:
        return
    torch.set_rng_state(saved.random[process])
    if saved.random_of_libraries:
        set_random_of_libraries(saved.random_of_libraries[process])
    if torch.cuda.is_initialized() and (state := saved.random_on_gpu[process]) is not None:
        torch.cuda.set_rng_state(state)
