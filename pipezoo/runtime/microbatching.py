"""The arithmetic of one training step that the pipeline and its reference share, so that they cannot differ in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from pipezoo.errors import ArgumentError

Tensors = tuple[torch.Tensor, ...]
LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def scaled(loss: nn.Module, num_microbatches: int) -> LossFunction:
    """The loss of one microbatch such that the sum over all is the loss of the batch.

    A mean over the batch is the mean of the means of equal microbatches, so each counts ``1 / num_microbatches``; a
    sum counts whole.

    Raises:
        ValueError: the loss has no ``reduction``, or one that is not ``mean`` or ``sum``.
    """
    reduction = getattr(loss, "reduction", None)
    if reduction not in ("mean", "sum"):
        raise ArgumentError("reduction", reduction, "the loss must say how it reduces a batch", "mean, sum")
    if reduction == "sum":
        return loss
    return lambda output, target: loss(output, target) / num_microbatches


def microbatches(tensors: Sequence[torch.Tensor], num_microbatches: int) -> list[Tensors]:
    """Equal slices of rows, views of the batch: ``[num_microbatches]`` tuples."""
    for tensor in tensors:
        if tensor.shape[0] % num_microbatches:
            raise ValueError(f"{tensor.shape[0]} rows cannot be cut into {num_microbatches} equal microbatches")
    return list(zip(*(torch.tensor_split(tensor, num_microbatches) for tensor in tensors), strict=True))


def total(terms: Sequence[torch.Tensor]) -> torch.Tensor:
    """Their sum, in their order: of the microbatches' scaled losses, or of the shares of a tied gradient."""
    result = terms[0]
    for term in terms[1:]:
        result = result + term
    return result
