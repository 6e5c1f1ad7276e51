"""Who is told of a parameter's gradient, besides its ``.grad``."""

from __future__ import annotations

import torch


def has_hook_after_accumulation(parameter: torch.Tensor) -> bool:
    """Whether something was registered with ``register_post_accumulate_grad_hook``."""
    return bool(getattr(parameter, "_post_accumulate_grad_hooks", None))


def has_hooks(parameter: torch.Tensor) -> bool:
    """Whether something is told of its gradient, or changes it."""
    return bool(getattr(parameter, "_backward_hooks", None)) or has_hook_after_accumulation(parameter)
