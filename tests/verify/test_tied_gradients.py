"""Tied parameters: their gradient is added up stage by stage, in the pipeline and in the reference alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.runtime import rank as rank_module
from pipezoo.runtime.microbatching import microbatches, scaled
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.interleaved_1f1b import interleaved_1f1b
from pipezoo.schedules.looped_bfs import looped_bfs
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zbv import zbv
from pipezoo.verify.tied_gradients import TiedGradients
from tests.support.pipelines import WIDTH, train

ADAM = partial(torch.optim.AdamW, lr=1e-2)


class Block(nn.Module):
    """The normalisation makes the gradient of the bias zero but for rounding, which Adam turns into whole steps."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight, self.bias = weight, nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(torch.relu(x) @ self.weight + self.bias, [WIDTH])


class Tied(nn.Module):
    """Four blocks; those in ``places`` have one weight in common."""

    def __init__(self, *places: int) -> None:
        super().__init__()
        shared = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.blocks = nn.ModuleList(
            Block(shared if place in places else nn.Parameter(torch.randn(WIDTH, WIDTH))) for place in range(4)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize(
    ("schedule", "places"),
    [
        (one_f_one_b(4, 4), (0, 1, 3)),
        (looped_bfs(2, 4), (0, 1, 3)),
        (zbv(2, 4), (0, 3)),
        (zbv(2, 4), (0, 1, 3)),
        (interleaved_1f1b(1, 4, 4), (0, 3)),
    ],
    ids=lambda value: f"{value.name} on {value.num_ranks}" if isinstance(value, Schedule) else str(value),
)
def test_tied_weights_under_adam_are_close_whoever_shares_them(
    pipeline: Callable[..., Pipeline], schedule: Schedule, places: tuple[int, ...]
) -> None:
    verdict = train(pipeline(partial(Tied, *places), schedule, optimizer=ADAM, steps=5)).verdict
    assert verdict["verified"] in ("exact", "close"), verdict["first"]
    assert verdict["max_relative_difference"] < 1e-6


def test_the_shares_add_up_to_the_gradient_of_the_unsplit_model(pipeline: Callable[..., Pipeline]) -> None:
    job = pipeline(partial(Tied, 0, 1, 3), one_f_one_b(4, 4))
    model, loss, batch = job.fresh_model(), scaled(nn.MSELoss(), 4), job.batch(0)
    cut = microbatches((*batch.args, batch.target), 4)
    tied = TiedGradients(job, torch.device("cpu"))
    tied.add(0, model, cut, loss, 0, lambda value: value)
    sums = tied.gradients()
    for x, target in cut:
        loss(model(x), target).backward()
    assert list(sums) == ["blocks.0.weight"]
    torch.testing.assert_close(sums["blocks.0.weight"], model.blocks[0].weight.grad)


@pytest.mark.parametrize("breaking", ["nothing is summed", "the last share is summed twice", "only step 0 is summed"])
def test_a_wrong_sum_fails_under_adam_too(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch, breaking: str
) -> None:
    right = rank_module.sum_tied_gradients
    calls: list[int] = []

    def wrong(tied_parameters: Any, parameters: Any, rank: int) -> None:
        calls.append(rank)
        if breaking == "only step 0 is summed" and len(calls) > 1:
            return
        if breaking == "the last share is summed twice" and rank == 3:
            parameters["blocks.0.weight"].grad *= 2
        if breaking != "nothing is summed":
            right(tied_parameters, parameters, rank)

    monkeypatch.setattr(rank_module, "sum_tied_gradients", wrong)
    verdict = train(pipeline(partial(Tied, 0, 3), one_f_one_b(4, 4), optimizer=ADAM)).verdict
    assert verdict["verified"] == "failed"
    where = "loss of step 2" if breaking == "only step 0 is summed" else "gradient of blocks.0.weight in step 0"
    assert verdict["first"].startswith(where)


def test_a_gradient_that_is_zero_but_for_rounding_is_no_difference_to_the_whole_batch(
    pipeline: Callable[..., Pipeline],
) -> None:
    verdict = train(pipeline(Tied, one_f_one_b(4, 4))).verdict
    assert verdict["verified"] == "exact"
    assert verdict["full_batch_difference"] < 1e-6


class Idle(nn.Sequential):
    """Four layers that have one parameter in common, which none of them uses."""

    def __init__(self) -> None:
        super().__init__(*(nn.Linear(WIDTH, WIDTH) for _ in range(4)))
        nobody = nn.Parameter(torch.ones(WIDTH))
        for layer in self:
            layer.register_parameter("nobody", nobody)


@pytest.mark.parametrize("schedule", [one_f_one_b(2, 4), looped_bfs(1, 4, 2), zbv(2, 4)], ids=lambda each: each.name)
def test_a_tied_parameter_that_nobody_uses_has_no_gradient_and_stays(
    pipeline: Callable[..., Pipeline], schedule: Schedule
) -> None:
    assert train(pipeline(Idle, schedule, optimizer=ADAM)).verdict["verified"] == "exact"
