"""A full backward by torch's engine itself. Its Python wrapper looks at every pair of tensor and gradient once more and
makes ones for a loss: as much time as a small stage takes. Shapes and dtypes are the engine's to check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

_engine: Any = getattr(torch.autograd.Variable, "_execution_engine", None)


def _run(ends: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None]) -> None:
    given = [torch.ones_like(end) if grad is None else grad for end, grad in zip(ends, gradients, strict=True)]
    _engine.run_backward(tuple(ends), tuple(given), False, False, (), allow_unreachable=True, accumulate_grad=True)


def gradients_of(
    inputs: Sequence[torch.Tensor], ends: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None]
) -> Sequence[torch.Tensor | None]:
    """The gradients of ``inputs``, None where nothing leads to one; frees the graph, and adds nothing to ``.grad``."""
    if not inputs or not ends:
        return [None] * len(inputs)
    if _engine is None:
        return torch.autograd.grad(ends, inputs, gradients, allow_unused=True)
    given = tuple(torch.ones_like(end) if grad is None else grad for end, grad in zip(ends, gradients, strict=True))
    found: Sequence[torch.Tensor | None] = _engine.run_backward(
        tuple(ends), given, False, False, tuple(inputs), allow_unreachable=True, accumulate_grad=False
    )
    return found


def is_transformed() -> bool:
    """Whether ``torch.func`` or forward-mode derivatives change what runs now: they know torch's own nodes alone."""
    functional: Any = getattr(torch._C, "_are_functorch_transforms_active", None)
    return bool(functional and functional()) or getattr(forward_ad, "_current_level", -1) >= 0


run_backward = _run if _engine is not None else torch.autograd.backward
"""Add to ``.grad`` of every leaf behind ``ends``, and free the graph. A gradient of None: the end is a scalar loss."""
