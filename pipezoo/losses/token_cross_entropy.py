"""Losses that torch.nn does not have in the shape a pipeline needs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pipezoo.errors import ArgumentError


class TokenCrossEntropy(nn.Module):
    """Cross entropy of a class per position, in nats.

    Args:
        reduction: "mean" over all positions of all rows, or their "sum".
    """

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in ("mean", "sum"):
            raise ArgumentError("reduction", reduction, "unknown", "mean, sum")
        super().__init__()
        self.reduction = reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """[rows, context, classes], [rows, context] int64 -> scalar

        Raises ValueError when the shapes do not fit each other.
        """
        if logits.shape[:-1] != target.shape:
            shapes = f"logits have shape {list(logits.shape)}"
            raise ArgumentError("target", list(target.shape), shapes, str(list(logits.shape[:-1])))
        return F.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction=self.reduction)
