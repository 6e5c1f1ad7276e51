"""What one writes for one device: gradient accumulation over the same microbatches, without stages."""

from __future__ import annotations

import torch

from benchmarks.turns import Step
from pipezoo.data.batch import Batch
from pipezoo.models import MultiMLP


def build(width: int, layers: int, microbatches: int, process: int, batch: Batch) -> Step:
    """A step of the whole model on process 0; others wait."""
    if process:
        return lambda: None
    torch.manual_seed(0)
    model, loss = MultiMLP(width, layers), torch.nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step() -> float:
        optimizer.zero_grad()
        total = torch.zeros(())
        parts = zip(batch.args[0].tensor_split(microbatches), batch.target.tensor_split(microbatches), strict=True)
        for x, target in parts:
            value = loss(model(x), target) / microbatches
            value.backward()
            total += value.detach()
        optimizer.step()
        return total.item()

    return step
