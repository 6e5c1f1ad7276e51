"""Inputs that are no tensors: None, numbers, containers, keywords."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.data.batch import Batch
from pipezoo.launch import Processes
from pipezoo.runtime.stages import inputs_of
from tests.support.experiments import WIDTH, ending, experiment


class Given(nn.Module):
    """Takes a mask that is None, a number, and a dict by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: torch.Tensor, mask: Any = None, scale: float = 1.0, *, more: Any) -> torch.Tensor:
        x = (x + more["bias"]) * scale if mask is None else x * mask
        for layer in self.layers[: more["depth"]]:
            x = layer(x).tanh()
        return x


class Plain(nn.Module):
    """A chain that is given a number which it leaves alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: torch.Tensor, times: int = 3, mask: Any = None) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def given(batch_size: int, seed: int, changes: bool = False) -> Callable[[int], Batch]:
    def batch(step: int) -> Batch:
        random = torch.Generator().manual_seed(seed + step)
        x, bias = (torch.randn(batch_size, WIDTH, generator=random) for _ in range(2))
        scale = 0.5 + step * changes
        return Batch((x, None), {"scale": scale, "more": {"bias": bias, "depth": 4}}, x.tanh())

    return batch


def plain(batch_size: int, seed: int) -> Callable[[int], Batch]:
    def batch(step: int) -> Batch:
        x = torch.randn(batch_size, WIDTH, generator=torch.Generator().manual_seed(seed + step))
        return Batch((x, 2), {"mask": None}, x.tanh())

    return batch


@pytest.mark.parametrize(
    ("model", "data", "split"),
    [(Given, given, "replay"), (Plain, plain, "modules")],
    ids=["replay", "modules"],
)
def test_a_run_takes_them(tmp_path: Path, model: Any, data: Any, split: str) -> None:
    words = {"split": f"pipezoo.splitters.{split}.split", "launch": Processes(), "launch_name": "processes"}
    assert ending(experiment(model, data=data, batch_size=8, **words), tmp_path) == (0, "exact")


def test_a_value_that_changes_is_refused_in_one_line(tmp_path: Path) -> None:
    words = {"split": "pipezoo.splitters.replay.split", "batch_size": 8}
    code, line = ending(experiment(Given, data=(given, {"changes": True}), **words), tmp_path)
    assert code != 0
    assert "an input is 1.5, and was 0.5 in the first batch; valid: tensors, or the same value in every step" in line


def test_copies_of_a_model_call_their_own_forward() -> None:
    model = Given()
    x, bias = inputs_of(model, given(4, 0)(0), torch.float32)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.layers[0].weight.zero_()
    assert not torch.equal(twin(x, bias), model(x, bias))
    assert twin.forward.own.__self__ is twin


def test_what_is_no_input_is_said() -> None:
    with pytest.raises(ValueError, match=r"Plain\.forward is given what cannot be an input: object is no tensor"):
        inputs_of(Plain(), Batch((torch.ones(2, WIDTH), object()), {}, torch.ones(2)), torch.float32)
    with pytest.raises(ValueError, match=r"the data gives Plain\.forward no tensor"):
        inputs_of(Plain(), Batch((None,), {}, torch.ones(2)), torch.float32)
