"""NaN and infinity are found in the step in which they appear, whatever they are in."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.errors import NonFiniteError
from pipezoo.runtime.finite_check import FiniteCheck
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.schedule.lowering import lower
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zb_h1 import zb_h1
from tests.support.pipelines import WIDTH, train

CHECK = FiniteCheck("stop", 1, {"a": 0, "b": 1}, first_step=0)


def parameter(*values: float, grad: list[float] | None = None) -> nn.Parameter:
    made = nn.Parameter(torch.tensor(values))
    made.grad = None if grad is None else torch.tensor(grad)
    return made


def test_a_loss_that_is_nan_in_the_first_step_is_not_the_learning_rates_fault() -> None:
    with pytest.raises(NonFiniteError) as found:
        CHECK.losses(0, [1.0, math.nan])
    assert str(found.value) == "step 0: the loss of microbatch 1 on stage 1 is nan; on_nonfinite=warn goes on"


def test_in_later_steps_it_may_be() -> None:
    with pytest.raises(NonFiniteError, match=r"stage 1 is inf; a smaller optimizer.lr may help; on_nonfinite=warn"):
        CHECK.losses(3, [math.inf])


def test_a_gradient_is_named_with_its_stage() -> None:
    with pytest.raises(NonFiniteError, match=r"^step 0: the gradient b on stage 1 is infinite; on_nonfinite=warn"):
        CHECK.gradients(0, {"a": parameter(1.0, grad=[2.0]), "b": parameter(1.0, 2.0, grad=[1.0, -math.inf])})


def test_a_parameter_is_named_too() -> None:
    with pytest.raises(NonFiniteError, match=r"^step 0: the parameter a on stage 0 is nan; a smaller optimizer.lr"):
        CHECK.parameters(0, {"a": parameter(math.nan), "b": parameter(1.0)})


def test_the_loss_is_nearer_to_the_cause_than_a_gradient_and_that_than_a_parameter() -> None:
    bad = {"a": parameter(math.nan, grad=[math.nan])}, {"b": parameter(math.nan, grad=[math.nan])}
    found = []
    for look in (
        lambda: CHECK.losses(0, [math.nan]),
        lambda: CHECK.gradients(0, bad[1]),
        lambda: CHECK.gradients(0, bad[0]),
        lambda: CHECK.parameters(0, bad[1]),
        lambda: CHECK.parameters(0, bad[0]),
    ):
        with pytest.raises(NonFiniteError) as error:
            look()
        found.append(error.value.precedence)
    assert found == sorted(set(found))


def test_large_numbers_are_finite() -> None:
    CHECK.gradients(0, {"a": parameter(0.0, 0.0, grad=[3e38, 3e38])})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.complex64])
def test_every_dtype_is_looked_at(dtype: torch.dtype) -> None:
    good = nn.Parameter(torch.ones(3, dtype=dtype))
    CHECK.parameters(0, {"a": good})
    with torch.no_grad():
        good[1] = math.nan
    with pytest.raises(NonFiniteError, match="the parameter a on stage 0 is nan"):
        CHECK.parameters(0, {"a": good})


def test_warn_says_so_and_ignore_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    FiniteCheck("ignore", 1, {}, 0).losses(1, [math.nan])
    assert capsys.readouterr().err == ""
    FiniteCheck("warn", 1, {}, 0).losses(1, [math.nan])
    assert capsys.readouterr().err == "warning: step 1: the loss of microbatch 0 on stage 1 is nan\n"


class Gate(nn.Module):
    """A gate that starts at 0 under a square root: the loss is finite, its gradient is not."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.layers[0].register_parameter("gate", nn.Parameter(torch.zeros(WIDTH)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[1](Gated(self.layers[0])(x))


class Gated(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * torch.where(self.layer.gate > 0, self.layer.gate.sqrt(), 0.0)


def cut(model: Any, num_stages: int, example: Any) -> list[nn.Module]:
    return [Gated(model.layers[0]), model.layers[1]]


@pytest.mark.parametrize("schedule", [one_f_one_b(2, 4), zb_h1(2, 4)], ids=lambda schedule: schedule.name)
@pytest.mark.parametrize("steps", [1, 3])
def test_a_gradient_that_is_nan_ends_the_run_in_its_step(
    pipeline: Callable[..., Pipeline], schedule: Any, steps: int
) -> None:
    made = partial(pipeline, Gate, schedule, cut, actions=lower(schedule, (0, 0)), stage_to_rank=(0, 0))
    with pytest.raises(NonFiniteError, match=r"step 0: the gradient layers.0.gate on stage 0 is nan; on_"):
        train(made(steps=steps))
