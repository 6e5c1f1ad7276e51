"""The orders on which each part of the recipe is tried, by name: two and four ranks, and all ranks in one process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pipezoo
from pipezoo.schedule.lowering import lower
from pipezoo.schedule.schedule import Schedule
from tests.support.pipelines import WIDTH, Trained, build_pipeline, train

WRITTEN = """\
0F0,0F1,0F2,0B0,0F3,0I1,0B2,0W1,0B3
1F0,1B0,1F1,1I1,1F2,1W1,1B2,1F3,1B3
"""  # a hand-written order, as a file has it


class Block(nn.Module):
    """A norm, a matrix and a bias, around a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(self.linear(self.norm(x)))


class Normed(nn.Sequential):
    """``[rows, WIDTH]`` to the same."""

    def __init__(self, depth: int = 8) -> None:
        super().__init__(*(Block() for _ in range(depth)))


def written(folder: Path) -> Schedule:
    path = folder / "order.csv"
    path.write_text(WRITTEN)
    return Schedule.from_csv(path)


SCHEDULES: dict[str, Callable[[Path], Schedule]] = {
    "1f1b on 2 ranks": lambda _: pipezoo.schedules["1f1b"](2, 4),
    "zbv on 4 ranks": lambda _: pipezoo.schedules.zbv(4, 4),
    "a file": written,
    "virtual zbv": lambda _: pipezoo.schedules.zbv(2, 4),
}
ORDERS = list(SCHEDULES)


def placed(name: str, folder: Path) -> tuple[Schedule, dict[str, Any]]:
    """The order of this name, and what a pipeline is told of where its stages are."""
    schedule = SCHEDULES[name](folder)
    if not name.startswith("virtual"):
        return schedule, {}
    here = (0,) * schedule.num_stages
    return schedule, {"stage_to_rank": here, "actions": lower(schedule, here)}


def trained(folder: Path, order: str, **changes: Any) -> Trained:
    """:class:`Normed`, trained by the order of this name; ``changes`` are fields of its pipeline."""
    scratch = Path(tempfile.mkdtemp(dir=folder))
    schedule, places = placed(order, scratch)
    torch.optim.AdamW([nn.Parameter(torch.zeros(1))])  # imports what each rank would import for itself
    return train(build_pipeline(scratch, **{"model": Normed, "schedule": schedule, **places, **changes}))
