"""What may cross between stages: every kind of value, and skips, on every way of running them."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from pipezoo.errors import RankError
from pipezoo.executors.native import NativeRank
from pipezoo.executors.skips import Crossing
from pipezoo.executors.torch_pipelining import TorchPipelining
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.schedule.lowering import lower
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.interleaved_1f1b import interleaved_1f1b
from pipezoo.schedules.interleaved_zero_bubble import interleaved_zero_bubble
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.memory import peak_memory
from pipezoo.skips import Skip, WithSkips, run_stages
from pipezoo.transports.choose import transport_for
from tests.support.pipelines import WIDTH, train

SCHEDULES = [one_f_one_b(4, 4), interleaved_1f1b(2, 4), zbv(2, 4)]
Pair = namedtuple("Pair", "x mask")


class Output(OrderedDict):
    """As transformers has them: a dict that is registered as a pytree."""


pytree.register_pytree_node(
    Output, lambda d: (list(d.values()), list(d)), lambda values, keys: Output(zip(keys, values, strict=True))
)


@dataclass
class Fields:
    x: torch.Tensor
    mask: torch.Tensor
    size: int = 3
    nothing: None = None


class InARow(nn.Module):
    """A model that is nothing but its stages."""

    def __init__(self, make: Callable[[int], nn.Module], num_stages: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(make(i) for i in range(num_stages))

    def forward(self, *inputs: torch.Tensor) -> Any:
        return run_stages(list(self.stages), inputs)


def cut(model: InARow, num_stages: int, example: Any) -> list[nn.Module]:
    assert len(model.stages) == num_stages
    return list(model.stages)


class Container(nn.Module):
    """Hands on a hidden state and a mask in a container, or in another one than it got."""

    def __init__(
        self, wrap: Callable[[torch.Tensor, torch.Tensor], Any], open_: Callable[[Any], Any], index: int
    ) -> None:
        super().__init__()
        self.layer, self.wrap, self.open, self.index = nn.Linear(WIDTH, WIDTH), wrap, open_, index

    def forward(self, *values: Any) -> Any:
        x, mask = (values[0], values[0] > 0) if self.index == 0 else self.open(*values)
        x = self.layer(x).tanh() * mask
        return x if self.index == 3 else self.wrap(x, mask)


CONTAINERS: dict[str, tuple[Any, Any]] = {
    "a dict": (lambda x, m: {"x": x, "mask": m, "none": None}, lambda d: (d["x"], d["mask"])),
    "a list": (lambda x, m: [x, m], lambda values: values),
    "a named tuple": (Pair, lambda pair: (pair.x, pair.mask)),
    "a dataclass": (Fields, lambda f: (f.x, f.mask) if f.size == 3 else None),
    "a registered class": (lambda x, m: Output(x=x, mask=m), lambda o: (o["x"], o["mask"])),
    "a tuple with plain values": (lambda x, m: (x, 4, "word", None, m), lambda x, four, word, none, m: (x, m)),
    "one tensor twice": (lambda x, m: (x, m, x), lambda x, m, y: ((x + y * y) / 2, m)),
    "nested": (lambda x, m: ({"x": [x]}, (m, torch.Size([2]))), lambda d, rest: (d["x"][0], rest[0])),
}


def trained(
    pipeline: Callable[..., Pipeline],
    layer: Callable[[int], nn.Module],
    schedule: Schedule,
    on_one_process: bool = False,
    **changes: Any,
) -> str:
    made = pipeline(partial(InARow, layer, schedule.num_stages), schedule, cut, **changes)
    return str(train(virtual(made) if on_one_process else made).verdict["verified"])


def virtual(made: Pipeline) -> Pipeline:
    placed = (0,) * made.schedule.num_stages
    return replace(made, actions=lower(made.schedule, placed), stage_to_rank=placed)


@pytest.mark.parametrize("container", CONTAINERS)
def test_crosses_as_it_left(pipeline: Callable[..., Pipeline], container: str) -> None:
    wrap, open_ = CONTAINERS[container]
    schedule = SCHEDULES[[*CONTAINERS].index(container) % len(SCHEDULES)]
    assert trained(pipeline, partial(Container, wrap, open_), schedule) == "exact"


class Skipping(nn.Module):
    """Stage 0 makes two skips. One is used in 2 and 3, twice in each; the other, which is also its output, in 3."""

    def __init__(self, index: int, last: int = 3) -> None:
        super().__init__()
        self.layer, self.index, self.last = nn.Linear(WIDTH, WIDTH), index, last
        self.takes: dict[str, Skip] = {}
        if index in (2, last):
            self.takes["h"] = Skip(0, "h")
        if index == last:
            self.takes["out"] = Skip(0, "out")

    def forward(self, x: torch.Tensor, h: Any = None, out: Any = None) -> Any:
        y = self.layer(x).tanh() + x / 3
        if self.index == 0:
            h = y * 2
            return WithSkips(y, {"h": {"h": h, "mask": h > 0}, "out": y})
        if h is not None:
            y = y + h["h"] * h["mask"] * 0.3 + (h["h"] * 0.7).sin()
        return y if out is None else y + out * out.cos()


@pytest.mark.parametrize("schedule", [*SCHEDULES, interleaved_zero_bubble(2, 4)], ids=lambda schedule: schedule.name)
def test_skips_are_exact(pipeline: Callable[..., Pipeline], schedule: Schedule) -> None:
    assert trained(pipeline, Skipping, schedule) == "exact"


@pytest.mark.parametrize("schedule", [SCHEDULES[0], SCHEDULES[2]], ids=lambda schedule: schedule.name)
def test_skips_are_exact_over_shared_memory(pipeline: Callable[..., Pipeline], schedule: Schedule) -> None:
    made = pipeline(partial(InARow, Skipping, 4), schedule, cut)
    made = replace(made, transport=transport_for(made, "fork", "shared_memory"), steps=4)
    assert train(made).verdict["verified"] == "exact"


@pytest.mark.parametrize("schedule", [SCHEDULES[0], SCHEDULES[2]], ids=lambda schedule: schedule.name)
def test_skips_are_exact_on_virtual_ranks(pipeline: Callable[..., Pipeline], schedule: Schedule) -> None:
    assert trained(pipeline, Skipping, schedule, on_one_process=True) == "exact"


def test_torchs_runtime_relays_skips(pipeline: Callable[..., Pipeline]) -> None:
    made = pipeline(partial(InARow, Skipping, 4), SCHEDULES[2], cut, executor=TorchPipelining())
    assert [(hop.before, hop.after) for hop in made.stages.wiring.hops] == [(0, 1), (1, 2), (2, 3)]
    assert train(made).verdict["verified"] == "exact"


def test_torchs_runtime_carries_containers_too(pipeline: Callable[..., Pipeline]) -> None:
    dataclasses = partial(Container, *CONTAINERS["a dataclass"])
    assert trained(pipeline, dataclasses, SCHEDULES[1], executor=TorchPipelining()) == "exact"


class Odd(nn.Module):
    """Indices alone, then images in channels-last layout and the indices untouched, a stage without parameters."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index
        if index != 2:
            self.layer = nn.Embedding(8, 3 * 4) if index == 1 else nn.Conv2d(3, 3, 1) if index == 3 else nn.Linear(1, 1)

    def forward(self, x: torch.Tensor, ids: Any = None) -> Any:
        if self.index == 0:
            return (x[:, :2] > 0).long()
        if self.index == 1:
            image = self.layer(x).unflatten(2, (3, 4)).permute(0, 2, 1, 3)
            return image.to(memory_format=torch.channels_last), x
        if self.index == 2:
            assert x.is_contiguous(memory_format=torch.channels_last)
            return x.tanh(), ids
        return self.layer(x).flatten(1).repeat(1, 2)[:, :WIDTH] * (1 + ids.sum(1, keepdim=True))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
@pytest.mark.parametrize("on_one_process", [False, True], ids=["processes", "virtual"])
def test_odd_stages_are_exact(pipeline: Callable[..., Pipeline], schedule: Schedule, on_one_process: bool) -> None:
    assert trained(pipeline, Odd, schedule, on_one_process=on_one_process) == "exact"


class Broken(nn.Module):
    """The last but one of its stages does what ``hand_on`` does."""

    def __init__(self, hand_on: Callable[[torch.Tensor], Any], index: int) -> None:
        super().__init__()
        self.layer, self.hand_on, self.index = nn.Linear(WIDTH, WIDTH), hand_on, index
        self.takes = {"h": Skip(0, "there")} if index == 3 and hand_on is missing else {}

    def forward(self, x: torch.Tensor, other: Any = None) -> Any:
        x = self.layer(x)
        return self.hand_on(x) if self.index == 2 else x


def missing(x: torch.Tensor) -> Any:
    return x


@pytest.mark.parametrize(
    ("hand_on", "said"),
    [
        (lambda x: (x, object()), "stage 2 returns what cannot cross: object is no tensor, no plain value and no"),
        (lambda x: None, "stage 2 returns NoneType without a tensor; a stage returns tensors"),
        (missing, "stage 3 takes the skip 'there' of stage 0, whose skips are: none; valid: a skip that an earlier"),
    ],
)
def test_what_cannot_cross_is_said_before_the_start(pipeline: Callable[..., Pipeline], hand_on: Any, said: str) -> None:
    with pytest.raises(ValueError, match="^" + said):
        pipeline(partial(InARow, partial(Broken, hand_on), 4), SCHEDULES[0], cut)


def test_a_plain_value_that_changes_is_found(pipeline: Callable[..., Pipeline]) -> None:
    made = pipeline(partial(InARow, partial(Broken, lambda x: (x, float(x.sum()))), 4), SCHEDULES[0], cut)
    with pytest.raises(RankError, match=r"stage 2 returns .*; valid: tensors, and plain values that are equal for all"):
        train(made)


def drop(slots: Any, hop: Any) -> None:
    slots[:] = [None if part is None else tuple(torch.zeros_like(tensor) for tensor in part) for part in slots]


def twice(slots: Any, hop: Any) -> None:
    slots[:] = [None if part is None else tuple(2 * tensor for tensor in part) for part in slots]


@pytest.mark.parametrize("broken", [drop, twice], ids=["dropped", "summed twice"])
def test_the_gradient_of_a_skip_that_is_broken_fails(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch, broken: Any
) -> None:
    right = Crossing._hand_back

    def hand_back(self: Crossing, mb: int) -> None:
        right(self, mb)
        if self._stage.index == 3:
            broken(self.handed_back[1], mb)

    monkeypatch.setattr(Crossing, "_hand_back", hand_back)
    made = pipeline(partial(InARow, Skipping, 4), SCHEDULES[2], cut)
    assert train(made).verdict["verified"] == "failed"


def test_every_slot_of_a_crossing_is_empty_after_a_step(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = NativeRank.step

    def step(self: NativeRank, *args: Any) -> Any:
        losses = right(self, *args)
        for crossing in self._crossings.values():
            for slots in (crossing.arrived, crossing.left, crossing.returned, crossing.handed_back):
                assert all(value is None for of_hop in slots.values() for value in of_hop)
        return losses

    monkeypatch.setattr(NativeRank, "step", step)
    assert trained(pipeline, Skipping, SCHEDULES[2]) == "exact"


def test_what_is_kept_for_the_backward_is_what_was_predicted(pipeline: Callable[..., Pipeline]) -> None:
    """Stages whose values are no flat tuples keep nothing longer than the schedule has it."""
    made = pipeline(partial(InARow, Skipping, 4), SCHEDULES[2], cut)
    memory = [told["memory"] for told in train(made).told]
    by_stage = {stage: amount for each in memory for stage, amount in each["activation_bytes"].items()}
    freed = {stage: amount for each in memory for stage, amount in each["freed_by_input_grad"].items()}
    stages = sorted(by_stage)
    cost = Cost(F=1, I=1, W=1, activation_bytes=[by_stage[s] for s in stages]).for_stages(4)
    cost = replace(cost, freed_by_input_grad=[freed[s] for s in stages])
    assert {rank: peak for each in memory for rank, peak in each["peak"].items()} == dict(
        enumerate(peak_memory(SCHEDULES[2], cost).tolist())
    )
