"""The verdict on right pipelines, and on pipelines that are broken on purpose."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.errors import VerificationError
from pipezoo.models import ModelWithParamAlias, MultiMLP, MultiMLPWithDw
from pipezoo.runtime import assemble as assemble_module
from pipezoo.runtime import rank as rank_module
from pipezoo.runtime.microbatching import ScaledLoss
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.splitters.marked import split as split_marked
from pipezoo.splitters.replay import split as split_replayed
from pipezoo.verify.compare import Difference, compare
from pipezoo.verify.verify import compare_runs
from pipezoo.verify.whole_batch import WholeBatch
from tests.support.pipelines import WIDTH, train

MLP = partial(MultiMLP, WIDTH, 2)
ORDER = Schedule.from_orders([["0F0", "0F1", "0F2", "0B0", "0B1", "0B2"], ["1F0", "1B0", "1F1", "1B1", "1F2", "1B2"]])
NOTHING = WholeBatch(None, None)
SPLIT_ORDER = Schedule.from_orders(
    [
        ["0F0", "0F1", "0F2", "0I0", "0I1", "0W0", "0W1", "0I2", "0W2"],
        ["1F0", "1I0", "1F1", "1I1", "1W0", "1F2", "1I2", "1W1", "1W2"],
    ]
)


def test_a_right_pipeline_is_exact(pipeline: Callable[..., Pipeline]) -> None:
    trained = train(pipeline(MLP, ORDER))
    assert trained.verdict["verified"] == "exact"
    assert trained.verdict["max_relative_difference"] == 0.0
    assert trained.verdict["full_batch_difference"] < 1e-6
    assert trained.verdict["num_compared"] == 3 + 8 + 8  # losses of three steps, eight gradients, eight parameters
    assert [len(losses) for losses in trained.losses] == [4, 4, 4]  # three microbatches and their total


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_exact_too(pipeline: Callable[..., Pipeline], dtype: torch.dtype) -> None:
    assert train(pipeline(MLP, ORDER, dtype=dtype)).verdict["verified"] == "exact"


@pytest.mark.parametrize("own_weight_gradient", [False, True])
def test_a_split_backward_is_exact_with_either_weight_gradient(
    pipeline: Callable[..., Pipeline], own_weight_gradient: bool
) -> None:
    model = partial(MultiMLPWithDw, WIDTH, 2)
    assert train(pipeline(model, SPLIT_ORDER, own_weight_gradient=own_weight_gradient)).verdict["verified"] == "exact"


def test_a_sum_loss_is_exact(pipeline: Callable[..., Pipeline]) -> None:
    loss = nn.MSELoss(reduction="sum")
    assert (
        train(pipeline(MLP, ORDER, loss=loss, optimizer=partial(torch.optim.SGD, lr=1e-6))).verdict["verified"]
        == "exact"
    )


def test_tied_weights_are_close(pipeline: Callable[..., Pipeline]) -> None:
    trained = train(pipeline(partial(ModelWithParamAlias, WIDTH), ORDER, split_marked, extra=["y"]))
    assert trained.verdict["verified"] in ("exact", "close")
    assert trained.verdict["max_relative_difference"] < 1e-6


class FrozenFirst(MultiMLP):
    """Its first layer does not learn."""

    def __init__(self) -> None:
        super().__init__(WIDTH, 2)
        self.layers[0].requires_grad_(False)


@pytest.mark.parametrize("order", [ORDER, SPLIT_ORDER], ids=["whole", "split"])
def test_a_frozen_first_stage_leaves_the_second_one_learning(
    pipeline: Callable[..., Pipeline], order: Schedule
) -> None:
    trained = train(pipeline(FrozenFirst, order))
    assert trained.verdict["verified"] == "exact"
    assert trained.verdict["num_compared"] == 3 + 4 + 8


class Normalised(nn.Module):
    """Two layers with batch norm, whose running averages a dry run would spoil."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))
        self.b = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


def test_under_batch_norm_buffers_agree_and_the_whole_batch_differs(pipeline: Callable[..., Pipeline]) -> None:
    trained = train(pipeline(Normalised, ORDER))
    assert trained.verdict["verified"] == "exact"
    assert trained.verdict["full_batch_difference"] > 1e-3


class Expanding(MultiMLP):
    """Returns a sum over features, whose gradient is an expanded, non-contiguous tensor."""

    def __init__(self) -> None:
        super().__init__(WIDTH, 1)
        self.tail = Tail()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.layers[0](x).t()).t()


class Tail(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(WIDTH, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def split_expanding(model: Any, num_stages: int, example: Any) -> list[nn.Module]:
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = model.layers[0]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).t()

    class Second(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tail = model.tail

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.tail(x).t()

    return [First(), Second()]


def test_transposed_messages_arrive_right(pipeline: Callable[..., Pipeline]) -> None:
    assert train(pipeline(Expanding, ORDER, split_expanding)).verdict["verified"] == "exact"


# Broken on purpose ------------------------------------------------------------------------------------------------


def without_microbatch(pipeline: Pipeline, microbatch: int) -> Pipeline:
    kept = [[action for action in actions if action.microbatch != microbatch] for actions in pipeline.actions]
    return replace(pipeline, actions=kept)


def with_swapped_sends(pipeline: Pipeline) -> Pipeline:
    actions = [list(order) for order in pipeline.actions]
    sends = [i for i, action in enumerate(actions[0]) if action.op == Op.SEND_F][:2]
    first, second = sends
    actions[0].insert(second, actions[0].pop(first))
    return replace(pipeline, actions=actions)


def scale_twice(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    class Twice(ScaledLoss):
        def __call__(self, output: Any, target: torch.Tensor) -> torch.Tensor:
            return super().__call__(output, target) / 3

    monkeypatch.setattr(assemble_module, "scaled", Twice)
    return pipeline


def miss_an_optimizer_step(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    class Lazy(torch.optim.SGD):
        steps = 0

        def step(self, *args: Any, **kwargs: Any) -> Any:
            self.steps += 1
            return None if self.steps == 2 else super().step(*args, **kwargs)

    right = pipeline.optimizer
    monkeypatch.setattr(rank_module, "_agree", lambda pipeline, device: None)
    broken = partial(Lazy, lr=1e-3, momentum=0.9)
    return replace(pipeline, optimizer=lambda parameters: (broken if in_a_rank() else right)(parameters))


def in_a_rank() -> bool:
    return torch.distributed.is_initialized()


def freeze_the_last_stage(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    right = assemble_module.rank_stage

    def frozen(pipeline: Pipeline, index: int, *rest: Any) -> Any:
        if index == 1:
            pipeline.stages.modules[1].requires_grad_(False)
        return right(pipeline, index, *rest)

    monkeypatch.setattr(assemble_module, "rank_stage", frozen)
    return pipeline


def shift_the_targets(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    right = rank_module._batch

    def shifted(*args: Any) -> Any:
        batch, *more = right(*args)
        rows = tuple((inputs, None if target is None else target.roll(4, 0)) for inputs, target in batch.rows)
        return replace(batch, rows=rows), *more

    monkeypatch.setattr(rank_module, "_batch", shifted)
    return pipeline


def ignore_the_last_gradient(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    right = assemble_module.leave_values

    def lossy(pipeline: Pipeline, holding: Any, rank: int, when: str, writes: bool) -> None:
        if rank == 1 and when == "first":
            next(iter(pipeline.stages.parameters(1).values())).grad = None
        right(pipeline, holding, rank, when, writes)

    monkeypatch.setattr(assemble_module, "leave_values", lossy)
    return pipeline


@pytest.mark.parametrize(
    ("breaking", "finding"),
    [
        (lambda pipeline, _: without_microbatch(pipeline, 2), "loss of step 0"),
        (lambda pipeline, _: with_swapped_sends(pipeline), "loss of step 0"),
        (scale_twice, "loss of step 0"),
        (shift_the_targets, "loss of step 0"),
        (freeze_the_last_stage, "gradient of layers.1.net1.weight in step 0"),
        (ignore_the_last_gradient, "gradient of layers.1.net1.weight in step 0"),
        (miss_an_optimizer_step, "loss of step 2"),
    ],
    ids=lambda value: getattr(value, "__name__", None) or (value if isinstance(value, str) else None),
)
def test_a_broken_pipeline_fails(
    pipeline: Callable[..., Pipeline],
    monkeypatch: pytest.MonkeyPatch,
    breaking: Callable[[Pipeline, pytest.MonkeyPatch], Pipeline],
    finding: str,
) -> None:
    verdict = train(breaking(pipeline(MLP, ORDER), monkeypatch)).verdict
    assert verdict["verified"] == "failed"
    assert verdict["first"].startswith(finding)


def test_tied_weights_whose_gradients_are_not_summed_fail(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_module, "sum_tied_gradients", lambda *args: None)
    verdict = train(pipeline(partial(ModelWithParamAlias, WIDTH), ORDER, split_marked, extra=["y"])).verdict
    assert verdict["verified"] == "failed"
    assert "gradient of" in verdict["first"]


def test_a_stale_weight_gradient_fails(pipeline: Callable[..., Pipeline]) -> None:
    class Stale(MultiMLPWithDw):
        def __init__(self) -> None:
            super().__init__(WIDTH, 2)
            for layer in self.layers:
                for key, queue in layer.cached_context.items():
                    queue.append(torch.ones(4, WIDTH) if key.endswith("_input") else torch.zeros(4, WIDTH))

    verdict = train(pipeline(Stale, SPLIT_ORDER, own_weight_gradient=True)).verdict
    assert verdict["verified"] == "failed"
    assert "gradient of layers.0." in verdict["first"]


def test_another_seed_on_one_rank_is_found_before_the_first_step(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = rank_module._join_process_group

    def reseeded(pipeline: Pipeline, rank: int, device: torch.device) -> None:
        right(pipeline, rank, device)
        if rank == 1:
            with torch.no_grad():
                next(pipeline.stages.model.parameters()).add_(1e-3)

    monkeypatch.setattr(rank_module, "_join_process_group", reseeded)
    with pytest.raises(VerificationError, match="rank 1 starts with other parameters than rank 0"):
        train(pipeline(MLP, ORDER))


def test_another_schedule_on_one_rank_is_found_before_the_first_step(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = rank_module._agree

    def other(pipeline: Pipeline, device: torch.device) -> None:
        right(replace(pipeline, identity="11" * 32) if torch.distributed.get_rank() == 1 else pipeline, device)

    monkeypatch.setattr(rank_module, "_agree", other)
    with pytest.raises(VerificationError, match="rank 1 starts with other config or schedule than rank 0"):
        train(pipeline(MLP, ORDER))


# The comparison itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "relative", "bits_equal"),
    [
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]), 0.0, True),
        (torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]), 0.5, False),
        (torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.nan]), math.inf, False),
        (torch.tensor([math.inf]), torch.tensor([math.inf]), math.inf, False),
        (torch.tensor([1.0]), torch.tensor([0.0]), math.inf, False),
        (torch.tensor([-0.0]), torch.tensor([0.0]), 0.0, False),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64), math.inf, False),
        (torch.ones(2), torch.ones(3), math.inf, False),
        (None, torch.ones(1), math.inf, False),
        (torch.ones(1), None, math.inf, False),
        (None, None, 0.0, True),
        (torch.tensor([2**60, 1]), torch.tensor([2**60 + 12, 1]), math.inf, False),
        (torch.tensor([True, False]), torch.tensor([True, True]), math.inf, False),
        (torch.tensor([1 + 2j]), torch.tensor([1 + 4j]), 0.5, False),
        (torch.tensor([1 + 2j]), torch.tensor([1 + 2j]), 0.0, True),
    ],
)
def test_tensors_compare_as(
    ours: torch.Tensor | None, theirs: torch.Tensor | None, relative: float, bits_equal: bool
) -> None:
    difference = compare("x", 0, ours, theirs)
    assert (difference.relative, difference.bits_equal) == (relative, bits_equal)


def test_a_buffer_may_hold_infinities_where_the_bits_agree() -> None:
    mask, other = torch.tensor([0.0, -math.inf, math.nan]), torch.tensor([0.0, math.inf, math.nan])
    assert compare("mask", 0, mask, mask.clone(), may_be_infinite=True).bits_equal
    assert compare("mask", 0, mask, other, may_be_infinite=True).relative == math.inf


def test_nothing_compared_is_a_failure() -> None:
    assert compare_runs([], 1e-5, NOTHING, {}).failure == "nothing was verified: there is no gradient to compare"


def test_zero_gradients_verify_nothing() -> None:
    same = Difference("g", 0, 0.0, 0.0, 0.0, bits_equal=True)
    verdict = compare_runs([same], 1e-5, NOTHING, {"g": torch.zeros(3)})
    assert (verdict.verified, verdict.first) == ("failed", None)
    assert verdict.failure == "nothing was verified: every gradient of the first step is zero"


class Coarse(torch.nn.Module):
    """An autocast of its own, and a residual between the modules: shares of a gradient are rounded one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            for layer in self.layers:
                x = x + layer(x).relu()
        return x


def test_values_that_cross_in_a_coarse_dtype_have_its_tolerance(pipeline: Callable[..., Pipeline]) -> None:
    verdict = train(pipeline(Coarse, ORDER, split=split_replayed)).verdict
    assert (verdict["verified"], verdict["tolerance"]) == ("close", 5e-2)


@pytest.mark.parametrize("tolerance", [0.0, 1e-300, 1e-5])
def test_no_tolerance_turns_equal_bits_into_a_failure(tolerance: float) -> None:
    same = Difference("g", 0, 0.0, 0.0, 0.0, bits_equal=True)
    assert compare_runs([same], tolerance, WholeBatch(0.3, None), {"g": torch.ones(3)}).verified == "exact"


def test_a_difference_says_its_stage_and_both_values() -> None:
    text = str(compare("gradient of w in step 0", 2, torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0])))
    assert text == "gradient of w in step 0 (stage 2): pipeline 3, one device 2"
