"""Two statements, two measures: the pipeline's bits, and what microbatches are to the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.models import MultiMLP
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.schedule.lowering import lower
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zb_h1 import zb_h1
from tests.support.pipelines import WIDTH, train

MLP = partial(MultiMLP, WIDTH, 2)


class Stack(nn.Module):
    """Two equal layers, to be cut between them."""

    def __init__(self, layer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([layer(), layer()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def cut(model: Any, num_stages: int, example: Any) -> list[nn.Module]:
    return list(model.layers)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).tanh()


class Masked(Layer):
    """As GPT code does: a buffer of minus infinity above the diagonal."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))
        self.register_buffer("unset", torch.full((2,), torch.nan))


class OwnNorm(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = super().forward(x)
        return (hidden - hidden.mean(0)) / (hidden.std(0) + 1e-3)


class MovingAverage(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = super().forward(x)
        with torch.no_grad():
            self.average.mul_(0.9).add_(hidden.mean(0), alpha=0.1)
        return hidden + self.average


class Autocast(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x).float()


class Counter(Layer):
    """Integers beyond 2**53, which a float cannot tell apart, and complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor(2**60))
        self.register_buffer("rotary", torch.polar(torch.ones(WIDTH), torch.arange(WIDTH) * 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return super().forward(x) * self.rotary.imag


@pytest.mark.parametrize("layer", [Masked, OwnNorm, MovingAverage, Autocast, Counter], ids=lambda layer: layer.__name__)
def test_a_pipeline_with_the_bits_of_one_device_is_exact(
    pipeline: Callable[..., Pipeline], layer: Callable[[], nn.Module]
) -> None:
    assert train(virtual(pipeline, partial(Stack, layer))).verdict["verified"] == "exact"


class Contrastive(nn.Module):
    """Every row against every other one of its batch."""

    reduction = "mean"

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        scores = output @ target.T
        return nn.functional.cross_entropy(scores, torch.arange(len(output)))


class WeightedRows(nn.Module):
    """A mean over rows by weight, as over tokens that are no padding: microbatches have different weights."""

    reduction = "mean"

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        weight = target[:, 0].square()
        return ((output - target).square().mean(1) * weight).sum() / weight.sum()


@pytest.mark.parametrize("loss", [Contrastive, WeightedRows], ids=lambda loss: loss.__name__)
def test_a_loss_over_rows_together_is_exact_and_differs_from_the_whole_batch(
    pipeline: Callable[..., Pipeline], loss: type[nn.Module]
) -> None:
    verdict = train(virtual(pipeline, MLP, split=None, loss=loss())).verdict
    assert verdict["verified"] == "exact"
    assert verdict["full_batch_difference"] > 1e-4


class LyingMean(nn.Module):
    reduction = "mean"

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).square().sum()


class LyingSum(nn.Module):
    reduction = "sum"

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).square().mean()


class Stateful(nn.Module):
    reduction = "mean"
    calls = 0

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        Stateful.calls += 1
        return (output - target).square().mean() * (1.0 if Stateful.calls % 2 else 1.5)


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        (LyingMean, "the loss says reduction=mean, but it doubles with the rows of a batch; valid: reduction=sum"),
        (LyingSum, "the loss says reduction=sum, but it stays with twice the rows of a batch; valid: reduction=mean"),
    ],
)
def test_a_loss_that_does_not_reduce_as_it_says_fails(
    pipeline: Callable[..., Pipeline], loss: type[nn.Module], why: str
) -> None:
    verdict = train(virtual(pipeline, MLP, split=None, loss=loss())).verdict
    assert (verdict["verified"], verdict["failure"]) == ("failed", why)


def test_a_loss_that_changes_from_call_to_call_fails(pipeline: Callable[..., Pipeline]) -> None:
    assert train(virtual(pipeline, MLP, split=None, loss=Stateful())).verdict["verified"] == "failed"


class DeadUnits(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.linear(x) - 1e6).relu()


def test_where_every_gradient_is_zero_nothing_is_verified(pipeline: Callable[..., Pipeline]) -> None:
    verdict = train(virtual(pipeline, partial(Stack, DeadUnits))).verdict
    assert verdict["failure"] == "nothing was verified: every gradient of the first step is zero"


@pytest.mark.parametrize("schedule", [one_f_one_b(2, 4), zb_h1(2, 4)], ids=lambda schedule: schedule.name)
def test_gradient_hooks_that_clip_are_exact(pipeline: Callable[..., Pipeline], schedule: Any) -> None:
    made = virtual(pipeline, ClippedStack, schedule=schedule)
    assert train(made).verdict["verified"] == "exact"


class ClippedStack(Stack):
    """Clips every gradient once it is accumulated."""

    def __init__(self) -> None:
        super().__init__(Layer)
        for parameter in self.parameters():
            parameter.register_post_accumulate_grad_hook(clip)


def clip(parameter: torch.Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.clamp_(-0.001, 0.001)


def virtual(
    pipeline: Callable[..., Pipeline], model: Any, split: Any = cut, schedule: Any = None, **changes: Any
) -> Any:
    """All ranks in one process."""
    schedule = schedule or one_f_one_b(2, 4)
    placed = (0,) * schedule.num_stages
    cutting = {} if split is None else {"split": split}
    return pipeline(model, schedule, actions=lower(schedule, placed), stage_to_rank=placed, **cutting, **changes)
