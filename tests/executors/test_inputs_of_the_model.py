"""An input of the model does not travel: a stage that uses it has it from the batch of its own rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.executors import native
from pipezoo.executors.torch_pipelining import TorchPipelining
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.schedule.action import Op
from pipezoo.schedule.lowering import lower
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.interleaved_1f1b import interleaved_1f1b
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zbv import zbv
from pipezoo.skips import Skip, WithSkips
from pipezoo.splitters import annotated, replay
from tests.support.pipelines import ROWS, WIDTH, build_pipeline, train

ONE_HIDDEN_STATE = ROWS * WIDTH * 4  # bytes


class Masked(nn.Module):
    """Every layer uses the mask."""

    split_spec = {f"layers.{index}": "beginning" for index in (1, 2, 3)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).tanh() * mask
        return x


class Late(nn.Sequential):
    """Stages by hand: the last one takes the second input, which the first hands on as it came, or changed in place."""

    def __init__(self, changes: bool) -> None:
        super().__init__()
        self.stages = nn.ModuleList([First(changes), Middle(), Middle(), Last()])

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        first, middle, other, last = self.stages
        made = first(x, mask)
        return last(other(middle(made.output)), mask=made.skips["mask"])


class First(nn.Module):
    def __init__(self, changes: bool) -> None:
        super().__init__()
        self.layer, self.changes = nn.Linear(WIDTH, WIDTH), changes

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:
        return WithSkips(self.layer(x), {"mask": mask.clone().mul_(2) if self.changes else mask})


class Middle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).tanh()


class Last(Middle):
    takes = {"mask": Skip(0, "mask")}  # noqa: RUF012

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self.layer(x) * mask


def made(folder: Path, schedule: Schedule, split: Callable[..., Any] = replay.split, **changes: Any) -> Pipeline:
    return build_pipeline(folder, Masked, schedule, split, extra=("mask",), **changes)


@pytest.mark.parametrize("split", [replay.split, annotated.split])
def test_a_mask_that_every_stage_uses_is_in_no_message(tmp_path: Path, split: Callable[..., Any]) -> None:
    pipeline = made(tmp_path, one_f_one_b(4, 4), split)
    wiring = pipeline.stages.wiring
    assert [hop.num_bytes for hop in wiring.hops] == [ONE_HIDDEN_STATE] * 3
    assert wiring.skips == ()
    assert [plan.given for plan in wiring.stages] == [(), (1,), (1,), (1,)]
    assert all(action.peer is None for actions in pipeline.actions for action in actions)


def test_where_stages_know_their_neighbours_alone_it_is_handed_on(tmp_path: Path) -> None:
    pipeline = made(tmp_path, one_f_one_b(4, 4), executor=TorchPipelining())
    assert [hop.num_bytes for hop in pipeline.stages.wiring.hops] == [2 * ONE_HIDDEN_STATE] * 3
    assert all(plan.given == () for plan in pipeline.stages.wiring.stages)


@pytest.mark.parametrize("schedule", [one_f_one_b(4, 4), interleaved_1f1b(2, 4), zbv(2, 4)], ids=lambda s: s.name)
def test_it_is_exact(tmp_path: Path, schedule: Schedule) -> None:
    assert train(made(tmp_path, schedule)).verdict["verified"] == "exact"


def test_it_is_exact_on_virtual_ranks(tmp_path: Path) -> None:
    schedule = one_f_one_b(4, 4)
    pipeline = made(tmp_path, schedule)
    placed = (0,) * 4
    one_process = replace(pipeline, actions=lower(schedule, placed), stage_to_rank=placed, transport=None)
    assert train(one_process).verdict["verified"] == "exact"


def test_the_mask_of_another_microbatch_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = native.microbatches

    def turned(tensors: Any, size: int) -> Any:
        return cut(tensors, size) if len(tensors) == 2 else cut(tensors, size)[::-1]

    monkeypatch.setattr(native, "microbatches", turned)
    assert train(made(tmp_path, one_f_one_b(4, 4))).verdict["verified"] == "failed"


@pytest.mark.parametrize("changes", [False, True])
def test_what_a_stage_made_of_an_input_travels(tmp_path: Path, changes: bool) -> None:
    def by_hand(model: Any, num_stages: int, example: Any) -> list[nn.Module]:
        return [*model.stages]

    pipeline = build_pipeline(tmp_path, lambda: Late(changes), one_f_one_b(4, 4), by_hand, extra=("mask",))
    assert [(hop.before, hop.after) for hop in pipeline.stages.wiring.skips] == [(0, 3)] * changes
    sends = [action for action in pipeline.actions[0] if action.op == Op.SEND_F and action.peer == 3]
    assert len(sends) == 4 * changes
    assert train(pipeline).verdict["verified"] == "exact"


class ChangesItsInput(First):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:
        return WithSkips(self.layer(x), {"mask": mask.mul_(2)})


def test_an_input_that_a_stage_changes_in_place_is_its_own_from_then_on(tmp_path: Path) -> None:
    def model() -> nn.Module:
        late = Late(False)
        late.stages[0] = ChangesItsInput(False)
        return late

    def by_hand(model: Any, num_stages: int, example: Any) -> list[nn.Module]:
        return [*model.stages]

    pipeline = build_pipeline(tmp_path, model, one_f_one_b(4, 4), by_hand, extra=("mask",))
    assert [(hop.before, hop.after) for hop in pipeline.stages.wiring.skips] == [(0, 3)]
    assert pipeline.stages.wiring.stages[3].given == ()


class TwoTowers(nn.Module):
    """The second stage reads nothing of the first but the input that it hands on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        one = self.first(x)
        return self.head(one + self.second(mask))


def test_something_crosses_each_cut_even_where_a_stage_needs_nothing_of_the_one_before(tmp_path: Path) -> None:
    pipeline = build_pipeline(tmp_path, TwoTowers, one_f_one_b(3, 4), replay.split, extra=("mask",))
    assert [(hop.before, hop.after) for hop in pipeline.stages.wiring.hops if hop.after == hop.before + 1]
    assert {(0, 1), (1, 2)} <= {(hop.before, hop.after) for hop in pipeline.stages.wiring.hops}
    assert train(pipeline).verdict["verified"] == "exact"
