"""The rows of a batch, dealt to the replicas of a pipeline: equal pieces, one behind the other.

batch of 12 rows, dp=2, 3 microbatches        replica 0: rows 0 1 | 2 3 | 4 5       replica 1: rows 6 7 | 8 9 | 10 11
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Shares:
    """What a process needs of a batch.

    Args:
        rows: of each share that it trains the inputs, for the first stage, and the target, for the last one.
        target: of the whole batch, for what a mean counts over; None where it has not the last stage.
    """

    rows: tuple[tuple[Tensors, torch.Tensor | None], ...]
    target: torch.Tensor | None = None

    @classmethod
    def none(cls, chosen: range) -> Shares:
        """What stages in the middle need."""
        return cls(tuple(((), None) for _ in chosen))

    @classmethod
    def of(cls, inputs: Sequence[torch.Tensor], target: torch.Tensor | None, chosen: range, num_shares: int) -> Shares:
        """Those of the ``num_shares`` shares of a batch that are chosen; views of it."""
        cut = [torch.tensor_split(tensor, num_shares) for tensor in inputs]
        targets = [None] * num_shares if target is None else torch.tensor_split(target, num_shares)
        return cls(tuple((tuple(tensor[i] for tensor in cut), targets[i]) for i in chosen), target)

    def to(self, device: torch.device) -> Shares:
        if device.type == "cpu":
            return self
        rows = tuple(
            (tuple(tensor.to(device) for tensor in inputs), None if target is None else target.to(device))
            for inputs, target in self.rows
        )
        return Shares(rows, None if self.target is None else self.target.to(device))
