"""No tensor is made that is larger than the memory left: a model or a batch too large is refused, not killed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from pipezoo.errors import ConfigError
from pipezoo.experiment.experiment import Experiment
from pipezoo.experiment.memory_limit import available_bytes
from pipezoo.results.units import bytes_text

SIZED = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)  # their first argument is the shape
SHAPE_AT = {torch.full: 0, torch.randint: -1, torch.empty_strided: 0}
SMALL = 2**24  # bytes that are not looked at
COPIES = 3  # of every parameter in a run: as built, as trained, its gradient


class TooLargeError(ValueError):
    """A tensor does not fit into memory."""


class AllocationGuard(TorchFunctionMode):
    """Inside of it, a tensor that is larger than what is left raises :class:`TooLargeError` before it is allocated."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in SIZED or func in SHAPE_AT:
            _check(_bytes(func, args, kwargs))
        return func(*args, **kwargs)


def check_model_fits(experiment: Experiment, dtype: torch.dtype) -> None:
    """Raise ConfigError if the parameters of a run do not fit into memory. Asked of models of pipezoo alone.

    They are made without memory (on the device ``meta``) and counted; code of others may do more than make tensors.
    """
    if not experiment.model.target.startswith("pipezoo."):
        return
    with torch.device("meta"):
        model = experiment.model()
    num_bytes = sum(p.numel() for p in model.parameters()) * dtype.itemsize
    if COPIES * num_bytes > (has := available_bytes()):
        raise ConfigError(
            f"model={experiment.model_name}: its parameters take {bytes_text(num_bytes)}, a run holds them {COPIES} "
            f"times (as built, as trained, as gradients), and {bytes_text(has)} of memory are free"
        )


def _check(num_bytes: float) -> None:
    if num_bytes > SMALL and num_bytes > (has := available_bytes()):
        raise TooLargeError(f"a tensor of it takes {bytes_text(num_bytes)}, and {bytes_text(has)} of memory are free")


def _bytes(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> float:
    """What the tensor takes that the call makes; 0 where its shape cannot be read."""
    shape = kwargs.get("size")
    if shape is None and args:
        shape = args[SHAPE_AT.get(func, 0)]
        if isinstance(shape, int):
            shape = args if func in SIZED else ()
    device = kwargs.get("device")
    if device is not None and torch.device(device).type != "cpu":
        return 0.0
    try:
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        return float(math.prod(shape or (0,)) * dtype.itemsize)
    except (TypeError, OverflowError):
        return 0.0 if not isinstance(shape, Sequence) else math.inf
