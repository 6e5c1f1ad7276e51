"""Running a model on an example without leaving a mark on it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipezoo.errors import ArgumentError, ConfigError, first_line
from pipezoo.skips import run_stages
from pipezoo.splitters._copies import copies

CHANGES_ITS_MIND = (
    "its forward gives another output each time it is called with the same input and the same random numbers; "
    "valid: one that asks no clock, no generator of its own and no random numbers of the system, and counts in buffers"
)


def twin_of(model: nn.Module) -> nn.Module:
    """A copy of the modules of `model` and their attributes, to be traced: it shares Parameters and buffers."""
    locked = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    shared: list[Tensor] = [*model.parameters(), *model.buffers(), *locked]
    return copies([model], shared)[0]


def run(stages: Sequence[nn.Module], example: tuple[Tensor, ...]) -> Any:
    """The output of `stages`, each fed with what the ones before made for it; `example` is positional.

    Autograd records, as in training: a forward may put a hook on what it computes. Every call draws the same random
    numbers of torch, numpy and Python, and their generators are left as they were.
    """
    inputs = tuple(tensor.clone() for tensor in example)
    with state_kept({tensor.device for tensor in example if tensor.is_cuda}), torch.enable_grad():
        seed(0)
        random.seed(0)
        np.random.seed(0)
        return run_stages(stages, inputs)


def seed(number: int) -> None:
    """Seed torch for a try, after which its generators are put back.

    ``torch.manual_seed`` formats the stack for each kind of device that this process does not use, which takes 300
    times as long.
    """
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


@contextmanager
def state_kept(devices: Collection[torch.device] = ()) -> Iterator[None]:
    """Leave what the whole process shares as it was: generators of torch, numpy and Python, and torch's modes."""
    ours, numpys = random.getstate(), np.random.get_state()
    dtype, grad, threads = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def output_of(model: nn.Module, example: tuple[Tensor, ...]) -> Any:
    """What `model` returns for `example`; raises ValueError with the cause in one line when it fails."""
    try:
        return run(copies([model]), example)
    except ConfigError:
        raise
    except Exception as error:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in example)
        name = type(model).__name__
        raise ArgumentError("example", shapes, f"the forward of {name} fails on it: {first_line(error)}") from error


def same_bits(a: Any, b: Any) -> bool:
    """Whether two outputs, nested as they may be, hold the same; NaN equals NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return [*a] == [*b] and all(same_bits(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(same_bits(x, y) for x, y in zip(a, b, strict=True))
    if dataclasses.is_dataclass(a) and type(a) is type(b):
        return same_bits(vars(a), vars(b))
    if (
        type(a) is type(b) and getattr(type(a), "__eq__", None) is vars(object)["__eq__"]
    ):  # a cache, which no loss compares
        return True
    return type(a) is type(b) and (isinstance(a, Tensor) or bool(a == b))
