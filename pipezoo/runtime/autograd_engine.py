"""A full backward by torch's engine itself. Its Python wrapper looks at every pair of tensor and gradient once more and
makes ones for a loss: as much time as a small stage takes. Shapes and dtypes are the engine's to check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

_engine: Any = getattr(torch.autograd.Variable, "_execution_engine", None)


def _run(ends: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None]) -> None:
    given = [torch.ones_like(end) if grad is None else grad for end, grad in zip(ends, gradients, strict=True)]
    _engine.run_backward(tuple(ends), tuple(given), False, False, (), allow_unreachable=True, accumulate_grad=True)


run_backward = _run if _engine is not None else torch.autograd.backward
"""Add to ``.grad`` of every leaf behind ``ends``, and free the graph. A gradient of None: the end is a scalar loss."""
