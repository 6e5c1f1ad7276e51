"""One device, tried before a process starts: what a cut may hide, and what does not repeat itself."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipezoo.errors import ConfigError
from pipezoo.runtime.build import build_pipeline
from tests.support.experiments import experiment

WIDTH = 8
CALLS = [0]


class Chain(nn.Sequential):
    """Four layers; the third does something of its own."""

    def __init__(self, kind: str) -> None:
        super().__init__(*(KINDS[kind if index == 2 else "plain"]() for index in range(4)))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.lin(x))


class ChangesWhatItReceives(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.relu_(x))


class AsksTheClock(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (1 + time.perf_counter() % 1)


class AsksTheSystem(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (1 + int.from_bytes(os.urandom(4), "big") / 2**32)


class CountsOutside(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        CALLS[0] += 1
        return super().forward(x) * CALLS[0]


class DrawsInItsBackward(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        y.register_hook(lambda grad: grad * torch.rand(()))
        return y


class HooksWhatItComputes(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        y.register_hook(lambda grad: 0.5 * grad)
        return y


class MovesItsBias(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        with torch.no_grad():
            self.lin.bias.add_(0.01)
        return y


class NumpyNoise(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * float(np.random.rand()) * random.random()


class HookThatReturns(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.lin.weight.register_post_accumulate_grad_hook(lambda p: p.grad)


class MakesAParameter(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "scale"):
            self.scale = nn.Parameter(torch.ones(WIDTH))
        return super().forward(x) * self.scale


class ChangesModes(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(3)
        return super().forward(x)


class RandomSteps(torch.optim.SGD):
    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=0.1)

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            parameter.data.add_(torch.randn_like(parameter), alpha=1e-3)


KINDS = {
    "plain": Layer,
    **{
        kind.__name__: kind
        for kind in (
            ChangesWhatItReceives,
            AsksTheClock,
            AsksTheSystem,
            CountsOutside,
            DrawsInItsBackward,
            HooksWhatItComputes,
            MovesItsBias,
            NumpyNoise,
            HookThatReturns,
            MakesAParameter,
            ChangesModes,
        )
    },
}
AGAIN = "gives another output each time it is called"
REFUSED = {
    "ChangesWhatItReceives": "one device, which verify=true compares with, fails in its backward: RuntimeError: one of",
    "AsksTheClock": AGAIN,
    "AsksTheSystem": AGAIN,
    "CountsOutside": AGAIN,
    "DrawsInItsBackward": "its backward draws random numbers",
    "MakesAParameter": "stage 1: its forward adds the parameter chain.0.scale; valid: parameters of the constructor",
    "NumpyNoise": r"2 \(NumpyNoise\) draws from Python's random and numpy.random",
    "HookThatReturns": "fails in its backward: RuntimeError: Tensor post accumulate grad hooks should return None",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_before_a_process_starts(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[kind]):
        build_pipeline(experiment((Chain, {"kind": kind})), tmp_path)


@pytest.mark.parametrize("kind", ["plain", "HooksWhatItComputes", "MovesItsBias", "ChangesModes"])
def test_built_and_left_as_it_was(tmp_path: Path, kind: str) -> None:
    pipeline, _ = build_pipeline(experiment((Chain, {"kind": kind})), tmp_path)
    assert (torch.get_default_dtype(), torch.get_num_threads()) == (torch.float32, 1)
    torch.manual_seed(0)
    for ours, theirs in zip(pipeline.stages.model.parameters(), Chain(kind).parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.grad is None


def test_an_optimizer_that_draws_random_numbers_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its step draws random numbers, other ones on each rank"):
        build_pipeline(experiment((Chain, {"kind": "plain"}), optimizer=RandomSteps), tmp_path)
    build_pipeline(experiment((Chain, {"kind": "plain"}), optimizer=RandomSteps, verify=False), tmp_path)


def test_where_nobody_compares_one_device_need_not_run(tmp_path: Path) -> None:
    build_pipeline(experiment((Chain, {"kind": "ChangesWhatItReceives"}), verify=False), tmp_path)
