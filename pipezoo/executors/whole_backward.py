"""A backward that cannot be cut, in an order that cuts it: I runs it whole, and W hands out what I put down.

    I    one backward: gradients of what arrived ──► the stage before      of the parameters ──► put down
    W    parameter.grad += what was put down

The numbers are those of a whole backward. W does next to nothing, so it fills no bubble. From I to W a stage holds, for
each microbatch in between, gradients as large as its parameters; its activations are free after I.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from pipezoo.runtime.autograd_engine import gradients_of, run_backward


class Later(NamedTuple):
    """What is left for W: gradients that were put down, or a whole backward, where nothing is handed back."""

    parameters: Sequence[nn.Parameter] = ()
    gradients: Sequence[torch.Tensor | None] = ()
    ends: Sequence[torch.Tensor] = ()
    arrived: Sequence[torch.Tensor | None] = ()


class WholeBackward:
    """I and W of one stage.

    Args:
        module: the stage; its parameters that learn.
    """

    def __init__(self, module: nn.Module) -> None:
        self._learning = [parameter for parameter in module.parameters() if parameter.requires_grad]

    def input_gradient(
        self, ends: list[torch.Tensor], grads: list[torch.Tensor | None], leaves: list[torch.Tensor]
    ) -> tuple[list[torch.Tensor | None], list[Later]]:
        """I: as :func:`pipezoo.executors.split_backward.input_gradient`."""
        if not leaves or not ends:
            return [None] * len(leaves), [Later(ends=ends, arrived=grads)] if ends else []
        found = gradients_of([*leaves, *self._learning], ends, grads)
        return list(found[: len(leaves)]), [Later(self._learning, found[len(leaves) :])]

    def weight_gradient(self, later: list[Later]) -> None:
        """W: adds up; what was put down is let go."""
        with torch.no_grad():
            for parameters, gradients, _, _ in later:
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    if gradient is None:
                        continue
                    if parameter.grad is None:
                        parameter.grad = gradient
                    else:
                        parameter.grad += gradient
        for _, _, ends, arrived in later:
            if ends:
                run_backward(ends, arrived)
        later.clear()
