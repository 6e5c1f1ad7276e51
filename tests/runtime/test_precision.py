"""Autocast, masters, scaled losses, accumulated gradients, moving averages: exact on every order, resumed, broken."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.errors import ConfigError
from pipezoo.experiment.experiment import CheckpointOptions, Experiment
from pipezoo.experiment.precision import Precision, bf16, bf16_master, fp16, fp32
from pipezoo.experiment.recipe import Recipe
from pipezoo.models import MultiMLP
from pipezoo.runtime import assemble, autocast, loss_scale, moving_average, optimizing
from pipezoo.runtime.build import build_pipeline
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.read_checkpoint import read
from tests.support import recipes
from tests.support.experiments import experiment, run
from tests.support.pipelines import WIDTH, Trained
from tests.support.recipes import ORDERS, Block, Normed

ADAMW = partial(torch.optim.AdamW, lr=1e-2)
MLP = partial(MultiMLP, WIDTH, 8)  # what crosses its cuts is bfloat16 under autocast
FIRST, THEN = 2.0**12, 0.25
SCALING = fp16(start=FIRST, backoff=THEN / FIRST, interval=1)


class Loud(torch.autograd.Function):
    """A weight as it is, whose gradient is too large for the first scale."""

    @staticmethod
    def forward(context: Any, weight: torch.Tensor) -> torch.Tensor:
        return weight.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 1e37


class LoudBlock(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + nn.functional.linear(self.norm(x), Loud.apply(self.linear.weight))


class LoudFirst(nn.Sequential):
    """Only the first stage finds an infinite gradient."""

    def __init__(self) -> None:
        super().__init__(LoudBlock(), *(Block() for _ in range(7)))


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Trained]:
    return partial(recipes.trained, tmp_path, optimizer=ADAMW)


@pytest.mark.parametrize("order", ORDERS)
def test_autocast_is_exact_also_where_what_crosses_is_coarse(trained: Callable[..., Trained], order: str) -> None:
    run = trained(order, model=MLP, precision=bf16(), recipe=Recipe(clip=0.1))
    assert run.verdict["verified"] == "exact"
    assert run.verdict["tolerance"] == 0.05


@pytest.mark.parametrize("order", ORDERS)
def test_masters_averages_and_accumulated_gradients_are_exact(trained: Callable[..., Trained], order: str) -> None:
    recipe = Recipe(clip=0.05, accumulate=2, ema=0.75, groups=[{"max_dims": 1, "weight_decay": 0.0}])
    run = trained(order, precision=bf16_master(), dtype=torch.bfloat16, recipe=recipe, steps=4)
    assert run.verdict["verified"] == "exact"
    assert [sorted(step) for step in run.numbers] == [[], ["grad_norm"], [], ["grad_norm"]]


@pytest.mark.parametrize("order", ORDERS)
def test_where_one_rank_finds_an_infinite_gradient_all_skip_the_step(
    trained: Callable[..., Trained], order: str
) -> None:
    run = trained(order, model=LoudFirst, precision=SCALING)
    assert run.verdict["verified"] == "exact"
    assert [step["loss_scale"] for step in run.numbers] == [FIRST, THEN, 2 * THEN]


def test_a_mean_over_accumulated_steps_is_that_of_one_larger_batch(trained: Callable[..., Trained]) -> None:
    run = trained("virtual zbv", recipe=Recipe(accumulate=3), loss=nn.MSELoss(reduction="sum"))
    assert run.verdict["verified"] == "exact"
    run = trained("virtual zbv", recipe=Recipe(accumulate=3))
    assert run.verdict["verified"] == "exact"
    assert run.verdict["full_batch_difference"] < 1e-6  # of three whole batches, averaged


# Broken ------------------------------------------------------------------------------------------------------------

HALF = {"recipe": Recipe(accumulate=2, ema=0.75)}
MASTERS = {"precision": bf16_master(), "dtype": torch.bfloat16}


def forget(self: moving_average.MovingAverage) -> None:
    self.averages = {name: value.detach().clone() for name, value in self._values.items()}


# what is broken: where, its name, what stands there instead, the run
BROKEN: dict[str, tuple[Any, str, Any, dict[str, Any]]] = {
    "a rank that skips alone": (
        loss_scale.LossScale,
        "shared",
        lambda self, found: bool(found),
        {"model": LoudFirst, "precision": SCALING},
    ),
    "ranks without autocast": (autocast.Autocast, "module", lambda self, module: module, {"precision": bf16()}),
    "a loss that is not scaled": (assemble, "with_scaled_gradient", lambda loss, *_: loss, {"precision": SCALING}),
    "masters that nobody copies back": (optimizing.Optimized, "move", lambda self: self.optimizer.step(), MASTERS),
    "gradients cleared in every step": (Pipeline, "begins_update", lambda self, step: True, HALF),
    "a sum for a mean of steps": (assemble, "with_scaled_gradient", lambda loss, *_: loss, HALF),
    "an average that forgets": (moving_average.MovingAverage, "update", forget, HALF),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_is_caught(
    trained: Callable[..., Trained], broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, name, instead, changes = BROKEN[broken]
    monkeypatch.setattr(place, name, instead)
    assert trained("1f1b on 2 ranks", **{"steps": 4, **changes}).verdict["verified"] != "exact"


# Refused, and resumed -----------------------------------------------------------------------------------------------

EVERY = {"checkpoint": CheckpointOptions(every=2, keep=None)}
RECIPES: dict[str, dict[str, Any]] = {
    "fp16": {"precision": fp16(start=2.0**13, interval=1), "recipe": Recipe(ema=0.9, clip=1.0)},
    "bf16_master": {"precision": bf16_master(), "dtype": "bfloat16", "recipe": Recipe(accumulate=2, ema=0.9)},
}


def asked(**changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "optimizer": ("torch.optim.AdamW", {"lr": 0.01}),
        "num_stages": 4,
        "data": ("pipezoo.data.regression.batches", {"d_hid": WIDTH}),
        "steps": 4,
    }
    return experiment(Normed, **{**fields, **changes})


@pytest.mark.parametrize("name", RECIPES)
def test_a_resumed_run_is_the_one_that_was_not_interrupted(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    whole = run(asked(**recipe, **EVERY), tmp_path / "whole")
    source = str(tmp_path / "whole" / "checkpoints" / "step-00000002")
    again = run(asked(**recipe, **EVERY, num_stages=2, resume=source), tmp_path / "again")
    assert (again["verified"], again["losses"]) == ("exact", whole["losses"][2:])
    ours, theirs = (read(str(tmp_path / which)).recipe for which in ("again", "whole"))
    assert ours["average"].keys() == theirs["average"].keys() == dict(Normed().named_parameters()).keys()
    assert all(torch.equal(value, theirs["average"][key]) for key, value in ours["average"].items())
    assert ours.get("loss_scale") == theirs.get("loss_scale")


def test_a_checkpoint_without_masters_is_refused_where_they_are_asked_for(tmp_path: Path) -> None:
    run(asked(dtype="bfloat16", steps=2, **EVERY), tmp_path / "plain")
    with pytest.raises(ConfigError, match=r"was trained without a float32 master; valid: precision=none"):
        build_pipeline(asked(**RECIPES["bf16_master"], resume=str(tmp_path / "plain")), tmp_path)


def test_where_every_step_is_skipped_nothing_was_verified(trained: Callable[..., Trained]) -> None:
    verdict = trained("virtual zbv", precision=fp16(start=2.0**100)).verdict
    assert verdict["verified"] == "failed"
    assert verdict["failure"].endswith("was skipped: more steps, or a smaller precision.start")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"precision": bf16(), "dtype": "float64"},
            "precision=mine: does not go with dtype=float64; valid: dtype=float32",
        ),
        (
            {"precision": fp32(), "dtype": "bfloat16"},
            "precision=mine: does not go with dtype=bfloat16; valid: dtype=float32",
        ),
        ({"precision": bf16_master()}, "precision=mine: does not go with dtype=float32; valid: dtype=bfloat16"),
        ({"recipe": Recipe(accumulate=3)}, "steps=4: is not a multiple of optimizer.accumulate=3; valid: 3, 6 ..."),
        (
            {"recipe": Recipe(accumulate=2), "checkpoint": CheckpointOptions(every=3)},
            "checkpoint.every=3: is not a multiple of optimizer.accumulate=2; valid: 2, 4 ...",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        asked(precision_name="mine", **changes)
    assert str(error.value) == line


def test_a_device_that_lacks_a_dtype_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def lacks(*_: Any) -> Any:
        raise RuntimeError("not implemented for 'Half'")

    monkeypatch.setattr(autocast.torch, "autocast", lacks)
    with pytest.raises(ConfigError) as error:
        build_pipeline(asked(precision=Precision(autocast="float16"), precision_name="fp16"), tmp_path)
    assert str(error.value) == "precision=fp16: device=cpu does not compute in float16; valid: none, fp32"
