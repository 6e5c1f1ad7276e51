"""The loss that the model's own forward computes, from labels among its inputs."""

from __future__ import annotations

from torch import Tensor, nn

from pipezoo.validators import check_word


class OfModel(nn.Module):
    """The output as it is: one number per microbatch. The target is not looked at.

    Args:
        reduction: what the model's loss is over the rows of a microbatch, ``mean`` or ``sum``. A mean has to be over
            equally many in each: labels without padding.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check_word("reduction", reduction, ("mean", "sum"))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """[], anything -> []"""
        return output
