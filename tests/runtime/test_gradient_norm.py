"""Clipping by the norm of all gradients, on every kind of order, and what happens when it is done wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from pipezoo.errors import NonFiniteError
from pipezoo.experiment.recipe import Recipe
from pipezoo.models import ModelWithParamAlias
from pipezoo.runtime import gradient_norm, update
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.splitters.marked import split as split_marked
from tests.support import recipes
from tests.support.pipelines import WIDTH, Trained, train
from tests.support.recipes import ORDERS, placed

ADAMW = partial(torch.optim.AdamW, lr=1e-2)
CLIP = Recipe(clip=0.05)


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Trained]:
    return partial(recipes.trained, tmp_path, optimizer=ADAMW, recipe=CLIP)


@pytest.mark.parametrize("order", ORDERS)
def test_a_clipped_training_is_exact(trained: Callable[..., Trained], order: str) -> None:
    run = trained(order)
    assert run.verdict["verified"] == "exact"
    assert all(step["grad_norm"] > CLIP.clip for step in run.numbers)  # so that it did something
    assert [list(step) for step in run.numbers] == [["grad_norm"]] * 3


def test_an_infinite_clip_measures_and_moves_nothing(trained: Callable[..., Trained]) -> None:
    measured = trained("virtual zbv", recipe=Recipe(clip=math.inf))
    plain = trained("virtual zbv", recipe=Recipe())
    assert measured.verdict["verified"] == "exact"
    assert (measured.losses, plain.numbers) == (plain.losses, [{}, {}, {}])
    assert all(step["grad_norm"] > 0 for step in measured.numbers)


def test_tied_weights_count_once(pipeline: Callable[..., Pipeline], tmp_path: Path) -> None:
    schedule, _ = placed("a file", tmp_path)
    model = partial(ModelWithParamAlias, WIDTH)
    run = train(pipeline(model, schedule, split_marked, extra=["y"], recipe=Recipe(clip=0.5)))
    assert run.verdict["verified"] in ("exact", "close")
    assert run.verdict["max_relative_difference"] < 1e-6  # counted twice, the norm would be some per cent larger


def by_its_own_norm(self, mine: torch.Tensor, device: torch.device) -> list[torch.Tensor]:
    """What a rank that asks nobody does."""
    return [mine] * len(self._owners)


def by_sums_of_squares(self, gradients, device):
    """What most trainers do: each rank its sum of squares, and these added up."""
    own = [gradients[name] for _, name in self._own if gradients[name] is not None]
    square = sum(gradient.square().sum() for gradient in own)
    torch.distributed.all_reduce(square)
    return square.sqrt()


def test_a_rank_that_clips_by_its_own_norm_is_caught(
    trained: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_norm.GradientNorm, "_tables", by_its_own_norm)
    verdict = trained("1f1b on 2 ranks", optimizer=partial(torch.optim.SGD, lr=0.1)).verdict
    assert verdict["verified"] == "failed"
    assert verdict["first"].startswith("grad_norm of step 0: pipeline ")


def test_sums_of_squares_are_not_exact(trained: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_norm.GradientNorm, "__call__", by_sums_of_squares)
    assert trained("zbv on 4 ranks").verdict["verified"] == "close"


def test_clipping_that_is_left_out_is_caught(trained: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update.nn.utils, "clip_grads_with_norm_", lambda *_, **__: None)
    run = trained("virtual zbv", optimizer=partial(torch.optim.SGD, lr=0.1))
    assert run.verdict["verified"] == "failed"
    assert run.verdict["first"].startswith("loss of step 1 (stage 3): pipeline ")


class Times(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 1e20


def test_a_norm_that_overflows_stops_a_run_that_clips(pipeline: Callable[..., Pipeline], tmp_path: Path) -> None:
    schedule, _ = placed("a file", tmp_path)
    with pytest.raises(NonFiniteError) as error:
        train(
            pipeline(
                lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), Times(WIDTH, WIDTH)),
                schedule,
                recipe=CLIP,
                loss=nn.L1Loss(reduction="sum"),
            )
        )
    assert str(error.value).startswith(
        "step 0: the norm of all gradients is inf, so clipping would make them zero or nan"
    )
