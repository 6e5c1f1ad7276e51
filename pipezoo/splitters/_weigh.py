"""What a piece of a model weighs: parameters, FLOPs, seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipezoo.errors import ArgumentError
from pipezoo.no_compiler import no_compiler
from pipezoo.splitters._trees import map_tensors, tensors_in
from pipezoo.validators import check_int

MEASURES = ("parameters", "flops", "time")
WARM_UP = 2  # runs before those that count


def check_measure(by: str, repeats: int) -> None:
    """Raises ValueError for an unknown measure, or less than one repeat."""
    if by not in MEASURES:
        raise ArgumentError("by", by, "unknown measure", MEASURES)
    check_int("repeats", repeats, 1)


def num_parameters(piece: nn.Module) -> float:
    return float(sum(parameter.numel() for parameter in piece.parameters()))


def flops_of(run: Callable[[], Any]) -> tuple[float, Any]:
    """The floating-point operations of matrix products and convolutions in one run, and what it returns."""
    counter = FlopCounterMode(display=False)
    with no_compiler(), counter:
        result = run()
    return float(counter.get_total_flops()), result


def seconds_of(piece: Callable[..., Any], parameters: Iterable[Tensor], inputs: Any, repeats: int) -> float:
    """The median time of a forward and a backward; gradients are computed, and thrown away.

    Args:
        inputs: positional and keyword arguments of ``piece``: ``(args, kwargs)``.
    """
    times, learning = [], [parameter for parameter in parameters if parameter.requires_grad]
    for _ in range(WARM_UP + repeats):
        args, kwargs = map_tensors(_leaf, inputs)
        fresh = list(tensors_in((args, kwargs)))
        begin = _now(fresh)
        output = piece(*args, **kwargs)
        results = [value for value in tensors_in(output) if value.requires_grad]
        wanted = [*learning, *(value for value in fresh if value.requires_grad)]
        if results and wanted:
            torch.autograd.grad(results, wanted, [torch.ones_like(value) for value in results], allow_unused=True)
        times.append(_now(fresh) - begin)
    return statistics.median(times[WARM_UP:])


def _leaf(value: Tensor) -> Tensor:
    """A fresh input that asks for its gradient, as a stage's input does."""
    return value.detach().clone().requires_grad_(value.is_floating_point())


def _now(values: list[Tensor]) -> float:
    if any(value.is_cuda for value in values):
        torch.cuda.synchronize()
    return time.perf_counter()
