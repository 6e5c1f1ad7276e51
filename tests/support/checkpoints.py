"""Small checkpoints of two processes, for tests of what is done with their files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from pipezoo.runtime.checkpoint import CheckpointWriter, write_part
from pipezoo.runtime.optimizer_state import capture, names_of


def parts(value: float) -> tuple[nn.Linear, torch.optim.Optimizer]:
    layer = nn.Linear(3, 3)
    nn.init.constant_(layer.weight, value)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return layer, optimizer


def save(checkpoints: Path, step: int, keep: int | None = 1) -> None:
    """What two processes and their parent do for one checkpoint."""
    layer, optimizer = parts(float(step))
    keeper = CheckpointWriter(checkpoints, 2, keep)
    for process, names in enumerate((["weight"], ["bias"])):
        named = dict(layer.named_parameters())
        own = {name: named[name] for name in names}
        state = capture(optimizer, names_of(own.items()))
        keeper.on_message(f"rank {process}", write_part(checkpoints, step, process, own, state))
