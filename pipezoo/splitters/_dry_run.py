"""Running a model on an example without leaving a mark on it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pipezoo.errors import ArgumentError, first_line
from pipezoo.skips import run_stages


def twin_of(model: nn.Module, share_buffers: bool = True) -> nn.Module:
    """A copy of the modules of `model` and their attributes that shares its Parameters, and its buffers if wanted."""
    locked = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    shared: list[Tensor] = [*model.parameters(), *(model.buffers() if share_buffers else ()), *locked]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, about its own tree specs
        return copy.deepcopy(model, {**{id(tensor): tensor for tensor in shared}, **handles_of([model])})


def handles_of(modules: Sequence[nn.Module]) -> dict[int, Any]:
    """What a copy of modules has to share: the handles of their hooks that they keep, of which torch fails to copy a
    copy; by ``id``, as ``copy.deepcopy`` wants it."""
    found: dict[int, Any] = {}
    for module in (inner for outer in modules for inner in outer.modules()):
        for value in vars(module).values():
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(item, RemovableHandle):
                    found[id(item)] = item
    return found


def run(stages: Sequence[nn.Module], example: tuple[Tensor, ...]) -> Any:
    """The output of `stages`, each fed with what the ones before made for it; `example` is positional.

    Every call draws the same random numbers, and the generators are left as they were.
    """
    inputs = tuple(tensor.clone() for tensor in example)
    devices = {tensor.device for tensor in example if tensor.is_cuda}
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        return run_stages(stages, inputs)


def output_of(model: nn.Module, example: tuple[Tensor, ...]) -> Any:
    """What `model` returns for `example`; raises ValueError with the cause in one line when it fails."""
    try:
        return run([twin_of(model, share_buffers=False)], example)
    except Exception as error:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in example)
        name = type(model).__name__
        raise ArgumentError("example", shapes, f"the forward of {name} fails on it: {first_line(error)}") from error
