"""What one writes for one device: gradient accumulation over the same microbatches, without stages."""

from __future__ import annotations

import torch

from benchmarks.turns import Step
from pipezoo.data.regression import batches
from pipezoo.models import MultiMLP


def build(width: int, layers: int, rows: int, microbatches: int, rank: int) -> Step:
    """One step of the whole model on rank 0; the others wait."""
    if rank:
        return lambda number: None
    torch.manual_seed(0)
    model, loss = MultiMLP(width, layers), torch.nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    data = batches(rows, 0, width)

    def step(number: int) -> float:
        (x,), _, target = data(number)
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros(())
        for part, wanted in zip(x.tensor_split(microbatches), target.tensor_split(microbatches), strict=True):
            value = loss(model(part), wanted) / microbatches
            value.backward()
            total += value.detach()
        optimizer.step()
        return total.item()

    return step
