"""Cross entropy of a class per position, as language models have it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pipezoo.errors import ArgumentError
from pipezoo.validators import check_int


class TokenCrossEntropy(nn.Module):
    """Cross entropy of a class per position, in nats.

    Args:
        reduction: "mean" over all positions of all rows that count, or their "sum".
        ignore_index: the target of positions that do not count, such as padding.
    """

    def __init__(self, reduction: str = "mean", ignore_index: int = -100) -> None:
        if reduction not in ("mean", "sum"):
            raise ArgumentError("reduction", reduction, "unknown", "mean, sum")
        check_int("ignore_index", ignore_index, -(2**31))
        super().__init__()
        self.reduction, self.ignore_index = reduction, ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """[rows, context, classes], [rows, context] int64 -> scalar

        Raises ValueError when the shapes do not fit each other.
        """
        if logits.shape[:-1] != target.shape:
            shapes = f"logits have shape {list(logits.shape)}"
            raise ArgumentError("target", list(target.shape), shapes, str(list(logits.shape[:-1])))
        return F.cross_entropy(
            logits.flatten(0, -2), target.flatten(), reduction=self.reduction, ignore_index=self.ignore_index
        )
