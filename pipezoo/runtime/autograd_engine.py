"""Backwards by torch's engine itself. Its Python wrapper looks at every pair of tensor and gradient once more and
makes ones for a loss: as much time as a small stage takes. Shapes and dtypes are the engine's to check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.autograd.graph import GradientEdge

Ends = Sequence[torch.Tensor | GradientEdge]
_engine: Any = getattr(torch.autograd.Variable, "_execution_engine", None)


def run_backward(
    ends: Ends, gradients: Sequence[torch.Tensor | None], parameters: Sequence[torch.Tensor] | None = None
) -> None:
    """Add to ``.grad`` of every leaf behind ``ends``, and free the graph. A gradient of None: the end is a scalar loss.

    Args:
        parameters: the only leaves that are added to.
    """
    if _engine is None:
        torch.autograd.backward(ends, gradients, inputs=parameters)  # type: ignore[arg-type]
        return
    given = tuple(torch.ones_like(end) if grad is None else grad for end, grad in zip(ends, gradients, strict=True))  # type: ignore[arg-type]
    _engine.run_backward(
        tuple(ends), given, False, False, tuple(parameters or ()), allow_unreachable=True, accumulate_grad=True
    )


def gradients_of(
    inputs: Ends, ends: Ends, gradients: Sequence[torch.Tensor | None], keeps_graph: bool = False
) -> Sequence[torch.Tensor | None]:
    """The gradients of ``inputs``, None where nothing leads to one; adds nothing to ``.grad``.

    Args:
        keeps_graph: whether the graph is walked once more; else it is freed.
    """
    if not inputs or not ends:
        return [None] * len(inputs)
    if _engine is None:
        return torch.autograd.grad(ends, inputs, gradients, retain_graph=keeps_graph, allow_unused=True)  # type: ignore[arg-type]
    given = tuple(torch.ones_like(end) if grad is None else grad for end, grad in zip(ends, gradients, strict=True))  # type: ignore[arg-type]
    found: Sequence[torch.Tensor | None] = _engine.run_backward(
        tuple(ends), given, keeps_graph, False, tuple(inputs), allow_unreachable=True, accumulate_grad=False
    )
    return found


def is_transformed() -> bool:
    """Whether ``torch.func`` or forward-mode derivatives change what runs now: they know torch's own nodes alone."""
    functional: Any = getattr(torch._C, "_are_functorch_transforms_active", None)
    return bool(functional and functional()) or getattr(forward_ad, "_current_level", -1) >= 0
