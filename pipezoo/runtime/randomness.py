"""Random numbers of a model: found by the generators that its forward moves, whatever its modules are called."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from pipezoo.runtime.stages import Tensors
from pipezoo.splitters._copies import copies
from pipezoo.splitters._dry_run import state_kept


@contextmanager
def leaving_no_trace() -> Iterator[None]:
    """Leave generators and torch's modes as they were, and keep warnings for the run itself."""
    with state_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def drawing_module(model: nn.Module, example: Tensors) -> tuple[str, str] | None:
    """The first module, name and class, whose forward draws from the generators of torch, numpy or Python, or None."""
    with leaving_no_trace():
        before = generators()
        copies([model])[0](*example)
        if same_numbers(before, generators()):
            return None
    twin, found, began = copies([model])[0], [("", type(model).__name__)], []

    def watch(name: str, module: nn.Module) -> None:
        module.register_forward_pre_hook(lambda *_: began.append(generators()))

        def ended(*_: object) -> None:
            if not same_numbers(began.pop(), generators()):
                found.append((name, type(module).__name__))

        module.register_forward_hook(ended)

    for name, module in twin.named_modules():
        watch(name, module)
    with leaving_no_trace():
        twin(*example)
    return found[min(1, len(found) - 1)]  # the innermost ends first


def generators() -> tuple[object, ...]:
    kind, keys, place, *_ = np.random.get_state()
    return torch.get_rng_state(), torch.from_numpy(np.asarray(keys).astype(np.int64)), place, kind, random.getstate()


def same_numbers(before: tuple[object, ...], after: tuple[object, ...]) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
        for a, b in zip(before, after, strict=True)
    )
