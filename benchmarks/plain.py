"""What one writes for one device: gradient accumulation over the same microbatches, without stages; and how pipezoo
stands beside it, on virtual ranks of one process and on two real ones."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.turns import Step, Turns, alternate, words_of
from pipezoo.data.batch import Batch
from pipezoo.models import MultiMLP


def one_device(width: int, layers: int, microbatches: int, process: int, batch: Batch) -> Step:
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


def measure(where: str, width: int, stages: int, rows: int, microbatches: int, turns: int) -> Turns:
    """1F1B of pipezoo over the plain loop; ``where``: a word of the command line, like ``launch=virtual``."""
    words = [*words_of("1f1b", width, stages, rows, microbatches), where]
    return alternate(words, partial(one_device, width, stages, microbatches), turns)
