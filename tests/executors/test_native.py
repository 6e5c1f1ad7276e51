"""The native executor: right where a table of models cannot look, and broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.executors import native as native_module
from pipezoo.executors import stage_slots
from pipezoo.executors.native import native
from pipezoo.executors.stage_slots import StageSlots
from pipezoo.executors.torch_pipelining import TorchPipelining
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.schedule.lowering import lower
from pipezoo.schedules.gpipe import gpipe
from pipezoo.schedules.interleaved_zero_bubble import interleaved_zero_bubble
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zb_h1 import zb_h1
from pipezoo.schedules.zbv import zbv
from tests.support.pipelines import WIDTH, Trained, train

SPLIT = [zb_h1(2, 4), zbv(2, 4), interleaved_zero_bubble(2, 4)]


class Chain(nn.Module):
    """``layers`` in a row; each takes and returns a tuple where it wants to."""

    def __init__(self, make: Callable[[int], nn.Module], num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make(i) for i in range(num_layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value: Any = (x,)
        for layer in self.layers:
            value = layer(*value)
            value = value if isinstance(value, tuple) else (value,)
        return value[0]


def cut_by_layers(model: Chain, num_stages: int, example: Any) -> list[nn.Module]:
    per_stage = len(model.layers) // num_stages
    groups = [model.layers[i : i + per_stage] for i in range(0, len(model.layers), per_stage)]
    return [group[0] if per_stage == 1 else nn.Sequential(*group) for group in groups]


class Tower(nn.Module):
    """The second tower begins in a middle stage: no input leads to its parameters."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        if index == 1:
            self.second = nn.Parameter(torch.randn(WIDTH))
        self.index = index

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> Any:
        if self.index == 0:
            return self.layer(x).tanh()
        other = self.second.expand_as(x) * 2.0 if self.index == 1 else other
        return self.layer(x + other).tanh() if self.index == 3 else (self.layer(x).tanh(), other)


class PilesHooks(nn.Module):
    """Halves the gradient of what it receives, by a hook that it puts there in every forward."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:
            x.register_hook(lambda gradient: gradient / 2)
        return self.layer(x).tanh()


class Turned(nn.Module):
    """Hands on a transposed tensor, and another that is none of its own."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.layer, self.index = nn.Linear(WIDTH, WIDTH), index

    def forward(self, x: torch.Tensor, kept: torch.Tensor | None = None) -> Any:
        if self.index:
            x = x.transpose(1, 2)
        hidden = self.layer(x if self.index else x[:, None].expand(-1, 3, -1)).tanh()
        if self.index == 3:
            return (hidden.mean(1) + kept).tanh()
        return hidden.transpose(1, 2), x if kept is None else kept


class Plain(nn.Module):
    def __init__(self, index: int) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).tanh()


def trained(pipeline: Callable[..., Pipeline], layer: type[nn.Module], schedule: Any, **changes: Any) -> Trained:
    model = partial(Chain, layer, schedule.num_stages if schedule.num_stages > 2 else 4)
    return train(pipeline(model, schedule, cut_by_layers, **changes))


@pytest.mark.parametrize("schedule", SPLIT[1:], ids=lambda schedule: schedule.name)
@pytest.mark.parametrize("layer", [Tower, PilesHooks], ids=lambda layer: layer.__name__)
def test_split_backwards_are_exact_for(
    pipeline: Callable[..., Pipeline], layer: type[nn.Module], schedule: Any
) -> None:
    assert trained(pipeline, layer, schedule).verdict["verified"] == "exact"


@pytest.mark.parametrize("layer", [PilesHooks, Turned], ids=lambda layer: layer.__name__)
def test_full_backwards_are_exact(pipeline: Callable[..., Pipeline], layer: type[nn.Module]) -> None:
    assert trained(pipeline, layer, one_f_one_b(4, 4)).verdict["verified"] == "exact"


def test_hooks_do_not_pile_up_in_torchs_runtime_either(pipeline: Callable[..., Pipeline]) -> None:
    made = trained(pipeline, PilesHooks, one_f_one_b(4, 4), executor=TorchPipelining())
    assert made.verdict["verified"] == "exact"


@pytest.mark.parametrize("executor", [native(), TorchPipelining()], ids=["native", "torch"])
@pytest.mark.parametrize("schedule", [gpipe(2, 4), *SPLIT], ids=lambda schedule: schedule.name)
def test_every_executor_is_exact_on(pipeline: Callable[..., Pipeline], executor: Any, schedule: Any) -> None:
    made = trained(pipeline, Plain, schedule, executor=executor)
    assert made.verdict["verified"] == "exact"


def test_virtual_ranks_hand_tensors_over(pipeline: Callable[..., Pipeline]) -> None:
    schedule = zbv(2, 4)
    placed = (0,) * schedule.num_stages
    made = trained(pipeline, Tower, schedule, actions=lower(schedule, placed), stage_to_rank=placed)
    assert made.verdict["verified"] == "exact"


def test_every_slot_is_empty_after_a_step(pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch) -> None:
    right = native_module.NativeRank.step

    def step(self: native_module.NativeRank, *args: Any) -> Any:
        losses = right(self, *args)
        for slots in self._slots.values():
            for name in ("inputs", "leaves", "ends", "outputs", "grads", "input_grads", "targets"):
                assert not any(value is not None for value in getattr(slots, name)), f"{name} of stage {slots.index}"
            assert not any(slots.later)
        return losses

    monkeypatch.setattr(native_module.NativeRank, "step", step)
    assert trained(pipeline, Plain, zbv(2, 4)).verdict["verified"] == "exact"


def swap_two_slots(slots: StageSlots, right: Callable[[int], None], mb: int) -> None:
    if (slots.index, mb) == (0, 0):
        slots.inputs[0], slots.inputs[1] = slots.inputs[1], slots.inputs[0]
    right(mb)


def forget(slots: StageSlots, right: Callable[[int], None], mb: int) -> None:
    if mb != 2:
        right(mb)
    else:
        slots.later[mb].clear()


def take_the_gradient_of_the_step_before(slots: StageSlots, right: Callable[[int], None], mb: int) -> None:
    last = getattr(slots, "last", None)
    slots.last = slots.input_grads[mb]  # type: ignore[attr-defined]
    slots.input_grads[mb] = slots.input_grads[mb] if last is None else last
    right(mb)


def read_a_buffer_that_was_used_again(slots: StageSlots, right: Callable[[int], None], mb: int) -> None:
    values = stage_slots._taken(slots.inputs[mb])
    slots.inputs[mb] = tuple(value * (0.5 if slots.index == 1 and mb == 3 else 1.0) for value in values)
    right(mb)


@pytest.mark.parametrize(
    ("method", "broken", "schedule"),
    [
        ("forward", swap_two_slots, gpipe(2, 4)),
        ("weight_gradient", forget, zb_h1(2, 4)),
        ("send_backward", take_the_gradient_of_the_step_before, one_f_one_b(2, 4)),
        ("forward", read_a_buffer_that_was_used_again, one_f_one_b(2, 4)),
    ],
    ids=["swapped slot", "forgotten W", "message a step late", "buffer used again"],
)
def test_a_broken_executor_fails(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch, method: str, broken: Any, schedule: Any
) -> None:
    right = getattr(StageSlots, method)
    monkeypatch.setattr(StageSlots, method, lambda slots, mb: broken(slots, partial(right, slots), mb))
    made = train(pipeline(partial(Chain, Plain, 4), schedule, cut_by_layers))
    assert made.verdict["verified"] == "failed"


def test_a_gradient_that_is_added_twice_fails(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = stage_slots.weight_gradient

    def twice(later: list[Any]) -> None:
        parameters = [parameter for piece in later for parameter in piece.parameters]
        right(later)
        for parameter in parameters:
            parameter.grad.mul_(2.0)

    monkeypatch.setattr(stage_slots, "weight_gradient", twice)
    made = train(pipeline(partial(Chain, Plain, 4), zb_h1(2, 4), cut_by_layers))
    assert made.verdict["verified"] == "failed"


@pytest.mark.parametrize("executor", [native(), TorchPipelining()], ids=["native", "torch"])
def test_an_executor_says_before_the_start_what_it_cannot_split(executor: Any) -> None:
    tower, x = Tower(1), torch.randn(2, WIDTH, requires_grad=True)
    plain = Plain(0)
    plain.layer.weight.register_post_accumulate_grad_hook(lambda parameter: None)
    refused = []
    for stage in (tower, plain):
        outputs = stage(x)
        ends = list(outputs) if isinstance(outputs, tuple) else [outputs]
        try:
            executor.inspect(1, stage, stage, ends, [x])
        except ValueError as error:
            refused.append(str(error))
    ours = "the split backward of executor=torch leaves out"
    instead = "valid: executor=native, or a schedule of full backwards"
    expected = [
        f"{ours} second on stage 1, which no input leads to; {instead}",
        f"{ours} the hook after accumulation of layer.weight on stage 1; {instead}",
    ]
    assert refused == ([] if isinstance(executor, native_module.Native) else expected)
