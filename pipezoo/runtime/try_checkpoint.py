"""Whether a run can go on from a checkpoint as if it had never been interrupted, tried on copies of the parameters.

to be written    step, step, save ──► restore, step     against the same optimizer that goes on, bit for bit
to be read       restore ──► step                       what does not fit is found here, and not on a rank
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipezoo.errors import ConfigError
from pipezoo.runtime.checkpoint import Checkpoint
from pipezoo.runtime.optimizer_state import same
from pipezoo.runtime.optimizing import Optimized, Optimizing
from pipezoo.runtime.randomness import leaving_no_trace
from pipezoo.runtime.stages import Tensors
from pipezoo.runtime.try_out import Trial
from pipezoo.splitters._copies import copies
from pipezoo.splitters._dry_run import seed

STEPS = 2  # before the checkpoint, and after it
Named = dict[str, nn.Parameter]


def check_saving(optimizing: Optimizing, held: Named, trial: Trial) -> None:
    """Refuse an optimizer whose next step depends on something that a checkpoint would not hold.

    Args:
        held: the parameters of one process, by name.

    Raises:
        ConfigError: one that was restored takes another step.
    """
    gradients = gradients_of(held, trial)
    with leaving_no_trace():
        ours = learning_copies(held)
        optimizer = optimizing.of(ours)
        for _ in range(STEPS):
            step_with(optimizer, ours, gradients)
        theirs = {name: nn.Parameter(parameter.detach().clone()) for name, parameter in ours.items()}
        twin = optimizing.of(theirs)
        why = ""
        try:
            twin.restore(Checkpoint(Path(), STEPS, {}, {}, [optimizer.capture()], []))
            for number in range(STEPS):
                for stepped, named in ((optimizer, ours), (twin, theirs)):
                    seed(number)
                    step_with(stepped, named, gradients)
        except Exception as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
    for name, parameter in ours.items():
        if not same(parameter.detach(), theirs[name].detach()):
            why = why or f"a step moves {name} elsewhere than in a run that was not interrupted"
    if why:
        raise ConfigError(
            f"checkpoint.every: {type(optimizer.optimizer).__name__} cannot go on from a checkpoint: {why}; "
            "valid: state_dict() and load_state_dict() with all that a step depends on, or checkpoint.every=null"
        )


def check_model(model: nn.Module, example: Tensors) -> None:
    """Refuse a model whose forward counts in attributes that a checkpoint does not hold.

    Raises:
        ConfigError: a number of a module, not one of its buffers, moves from one forward to the next.
    """
    twin = copies([model])[0]
    with leaving_no_trace():
        twin(*example)  # the first one may fill caches
        before = _numbers(twin)
        twin(*example)
    for name, value in _numbers(twin).items():
        if not same(value, before.get(name)):
            raise ConfigError(
                f"checkpoint.every: {name} of {type(model).__name__} moves in every forward and is no buffer, so no "
                "checkpoint holds it; valid: a buffer (register_buffer), or checkpoint.every=null"
            )


def _numbers(model: nn.Module) -> dict[str, float]:
    return {
        f"{name}.{key}".lstrip("."): value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if type(value) in (int, float)
    }


def check_saved(optimizing: Optimizing, held: Named, trial: Trial, saved: Checkpoint) -> None:
    """Refuse a checkpoint that the optimizer cannot go on from.

    Args:
        held: the parameters of one process, by name.

    Raises:
        ConfigError: something is missing in it, has another shape, or makes a step fail.
    """
    gradients = gradients_of(held, trial)
    with leaving_no_trace():
        named = learning_copies(held)
        fresh = optimizing.of(named)
        step_with(fresh, named, gradients)
        state = fresh.optimizer.state
        expected = {name: state[parameter] for name, parameter in fresh.named.items() if parameter in state}
        named = learning_copies(held)
        optimizer = optimizing.of(named)
        try:
            optimizer.restore(saved)
            for name, parameter in optimizer.named.items():
                _check_state(name, optimizer.optimizer.state.get(parameter, {}), expected.get(name, {}))
            step_with(optimizer, named, gradients)
        except ConfigError:
            raise
        except Exception as error:
            text = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
            raise ConfigError(f"resume={saved.path}: {' '.join(text.split())[:300]}") from error


def _check_state(name: str, state: Any, expected: Any) -> None:
    """Raises ValueError where the state of a parameter is not what a step leaves behind."""
    for key in expected if state else ():
        if key not in state:
            raise ValueError(f"the optimizer's state of {name} has no {key}")
        ours, theirs = state[key], expected[key]
        if type(ours) is not type(theirs):
            raise ValueError(f"{key} of {name} is {type(ours).__name__}; valid: {type(theirs).__name__}")
        if isinstance(ours, torch.Tensor) and (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            words = [f"{tuple(tensor.shape)} {str(tensor.dtype)[6:]}" for tensor in (ours, theirs)]
            raise ValueError(f"{key} of {name} is {words[0]}; valid: {words[1]}")


def learning_copies(held: Mapping[str, nn.Parameter]) -> Named:
    """Copies of the parameters that learn, by name."""
    return {name: nn.Parameter(p.detach().clone()) for name, p in held.items() if p.requires_grad}


def gradients_of(held: Mapping[str, nn.Parameter], trial: Trial) -> dict[str, torch.Tensor | None]:
    """Those of the trial, by name."""
    return {name: trial.gradients.get(id(p)) for name, p in held.items() if p.requires_grad}


def step_with(optimizer: Optimized, named: Named, gradients: dict[str, torch.Tensor | None]) -> None:
    """One step of an optimizer on copies, with these gradients."""
    for name, parameter in named.items():
        gradient = gradients[name]
        parameter.grad = None if gradient is None else gradient.clone()
    optimizer.pull()
    optimizer.step()
    optimizer.hear(1.0)
