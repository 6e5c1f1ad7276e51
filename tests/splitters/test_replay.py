"""Models as they come: each stage runs the model's own forward, and the chain of them is the model, bit for bit."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pipezoo.data.batch import Batch
from pipezoo.experiment.python_component import PythonComponent
from pipezoo.skips import Skip
from pipezoo.splitters import _replay_places, replay
from tests.splitters.test_exact import forward_and_backward
from tests.support.experiments import ending, experiment
from tests.support.uncut_models import ROWS, UNCUT, WIDTH, Block, Checkpointed, Classifier, TwoTowers, UNet, ids


def build(make):
    torch.manual_seed(0)
    return make().train()


def given(name):
    torch.manual_seed(1)
    return UNCUT[name][1]()


class Chain(nn.Module):
    """Blocks in a row, each of them `kind`."""

    def __init__(self, kind=Block, depth: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(kind() for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


X = torch.ones(ROWS, WIDTH)


@pytest.mark.parametrize("num_stages", [2, 3])
@pytest.mark.parametrize("name", UNCUT)
def test_the_stages_in_a_row_are_the_model_gradients_and_buffers_too(name, num_stages):
    whole, cut = build(UNCUT[name][0]), build(UNCUT[name][0])
    stages = replay.split(cut, num_stages, given(name))
    expected = whole(*given(name))
    assert torch.equal(forward_and_backward(stages, given(name)), expected)
    expected.square().mean().backward()
    for (key, ours), theirs in zip(cut.named_parameters(), whole.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), key
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad), key
    for (key, ours), theirs in zip(cut.named_buffers(), whole.buffers(), strict=True):
        assert torch.equal(ours, theirs), key


def test_what_crosses_a_cut_is_what_later_modules_read():
    stages = replay.split(build(UNet), 4, given("unet"), at=["down2", "middle", "up2"])
    assert [stage.inputs for stage in stages[1:]] == [("down1.0:0",), ("down2.0:0",), ("middle.0:0",)]
    assert stages[3].takes == {"down1.0:0": Skip(0, "down1.0:0"), "down2.0:0": Skip(1, "down2.0:0")}


def test_an_input_that_later_stages_do_not_read_ends_in_the_first():
    stages = replay.split(build(UNet), 2, given("unet"))
    assert [name for name in (*stages[1].inputs, *stages[1].takes) if name.startswith("input")] == []


def test_a_stage_holds_the_parameters_of_its_modules_and_no_others():
    model = build(Chain)
    stages = replay.split(model, 4, (X,))
    assert [stage.names for stage in stages] == [("blocks.0",), ("blocks.1",), ("blocks.2",), ("blocks.3",)]
    per_block = sum(p.numel() for p in model.blocks[0].parameters())
    assert [sum(p.numel() for p in stage.parameters()) for stage in stages] == [per_block] * 4


def test_nothing_of_a_foreign_module_is_kept_alive_by_a_stage():
    stages = replay.split(build(Chain), 2, (X,))
    reached, waiting = set(), [stages[0]]
    while waiting:
        value = waiting.pop()
        if id(value) in reached:
            continue
        reached.add(id(value))
        if isinstance(value, Tensor):
            continue
        items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        waiting += [*items, *(vars(value).values() if hasattr(value, "__dict__") else ())]
    assert not reached & {id(p) for p in stages[1].parameters()}


@pytest.mark.parametrize(("at", "names"), [(["blocks.1"], 1), (["blocks.3", "blocks.1"], 1), (["blocks.2.up"], 2)])
def test_a_stage_begins_at_each_module_named(at, names):
    stages = replay.split(build(Chain), None, (X,), at=at)
    assert len(stages) == len(at) + 1
    assert len(stages[0].names) >= names
    assert stages[1].names[0] == sorted(at)[0]


def test_fewer_stages_than_places_join_the_lightest_neighbours():
    stages = replay.split(build(lambda: Chain(depth=6)), 2, (X,), at=["blocks.1", "blocks.3", "blocks.5"])
    assert stages[1].names[0] == "blocks.3"


@pytest.mark.parametrize("by", ["parameters", "flops", "time"])
def test_stages_weigh_the_same_by_every_measure(by):
    stages = replay.split(build(Chain), 2, (X.repeat(64, 1),), by=by, repeats=3)
    assert [len(stage.names) for stage in stages] in ([2, 2], [1, 3], [3, 1]) if by == "time" else [[2, 2]]


def test_modules_are_opened_where_stages_outnumber_them():
    stages = replay.split(build(Chain), 6, (X,))
    assert len(stages) == 6
    assert all(stage.names for stage in stages)
    assert any(name.count(".") == 2 for stage in stages for name in stage.names)


def test_hooks_and_compiled_blocks_run_where_their_module_runs():
    model, calls = build(Chain), []
    for index, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, index=index: calls.append(index))
    model.blocks[2].compile(backend="eager")
    stages = replay.split(model, 2, (X,))
    calls.clear()
    value = stages[0](X)
    assert calls == [0, 1]
    stages[1](value)
    assert calls == [0, 1, 2, 3]
    assert stages[1].model.blocks[2]._pipezoo_atom is model.blocks[2]


def test_the_memory_that_checkpointing_saves_is_saved_on_a_stage():
    def saved(model):
        stage, kept = replay.split(model, 2, (X,))[0], []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            stage(X.clone().requires_grad_())
        return sum(kept)

    torch.manual_seed(0)
    assert saved(build(Checkpointed)) < 0.5 * saved(build(lambda: Chain(depth=3)))


class Drawing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.linear(x))


def test_a_model_that_draws_is_proved_as_it_evaluates_and_stays_in_training():
    stages = replay.split(build(lambda: Chain(Drawing)), 2, (X,))
    assert all(module.training for stage in stages for module in stage.modules())


def test_the_own_except_of_a_model_does_not_catch_the_end_of_a_stage():
    class Careful(Chain):
        def forward(self, x):
            try:
                return super().forward(x)
            except Exception:
                return x

    stages = replay.split(build(Careful), 2, (X,))
    assert len(stages) == 2


class Detaching(nn.Module):
    """A value reaches a later module by a way that autograd does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        return self.third(self.second(a) + a.detach())


class Stashing(Chain):
    """A hook leaves a value for the root."""

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        handle = self.blocks[0].register_forward_hook(lambda module, args, output: kept.append(output))
        out = super().forward(x)
        handle.remove()
        return out + kept[0]


class Flowing(nn.Module):
    """The order of modules follows the data."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) if x.sum() > 0 else self.a(self.b(x))


def test_a_forward_that_takes_another_way_than_on_the_example_says_so():
    stages = replay.split(build(Flowing), 2, (X,))
    with pytest.raises(ValueError, match=r"^model=b: is called where a came when the model was cut"):
        stages[0](-X)


@pytest.mark.parametrize(
    ("make", "num_stages", "at", "line"),
    [
        (lambda: nn.Linear(WIDTH, WIDTH), 2, None, "num_stages=2: Linear has no place to cut"),
        (TwoTowers, 9, None, "num_stages=9: TwoTowers calls 6 module(s) with a place to cut before"),
        (Chain, 3, ["blocks.1"], "num_stages=3: split.at makes 2 stage(s); valid: 1..2"),
        (Chain, 2, ["blocks.7"], "at=blocks.7: Chain has no such module; valid: blocks.3, blocks.2, blocks.1"),
        (Chain, 2, ["blocks.0"], "at=blocks.0: is where the forward begins, so there is nothing before it"),
        (Chain, 2, ["blocks.1", "blocks.1.norm"], "at=blocks.1.norm: is where blocks.1 begins, which is listed too"),
        (Chain, 2, "blocks.1", "at=blocks.1: must be a list of names of modules"),
        (Detaching, 3, None, "model=Detaching: its stages give another output than it does"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused_in_a_line(make, num_stages, at, line):
    inputs = (ids(), ids()) if make is TwoTowers else (X,)
    with pytest.raises(ValueError, match="^" + re.escape(line)) as error:
        replay.split(build(make), num_stages, inputs, at=at)
    assert "\n" not in str(error.value)


class OneForAll(nn.Module):
    """Running statistics of one module that is called after every layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm = nn.BatchNorm1d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.norm(layer(x))
        return x


def test_statistics_that_several_stages_would_keep_are_refused():
    line = "split=norm: stages 1, 2 call it and change its num_batches_tracked, each microbatch in another order"
    with pytest.raises(ValueError, match="^" + re.escape(line)):
        replay.split(build(OneForAll), 3, (torch.randn(ROWS, WIDTH),))


def test_a_value_that_a_hook_leaves_for_the_root_crosses_the_cut():
    stages = replay.split(build(Stashing), 2, (X,))
    assert stages[1].inputs == ("blocks.0:0", "blocks.1:0")


@pytest.mark.parametrize("name", ["unet", "two_towers", "in_place"])
def test_a_cut_that_loses_a_value_is_refused(name, monkeypatch):
    """The proof itself: one of several values that a module reads is forgotten, and NaN reaches the output."""
    whole = _replay_places.without

    def forgetful(*given):
        record = whole(*given)
        calls = [replace(call, reads=frozenset(sorted(call.reads)[-1:])) for call in record.calls]
        return replace(record, calls=tuple(calls))

    monkeypatch.setattr(_replay_places, "without", forgetful)
    with pytest.raises(ValueError, match="its stages give another output than it does"):
        replay.split(build(UNCUT[name][0]), 3, given(name))


def test_placeholders_are_zeros_once_the_cut_is_proved():
    stage = replay.split(build(Classifier), 2, given("classifier"))[1]
    assert stage.board.blank == 0.0
    assert not stage.model.embedding.weight[:, 0].isnan().any()


def trains(folder, name, **changes):
    """Its exit code and verdict, or the line of its error; two ranks in this process."""
    make = UNCUT[name][0]
    inputs = given(name)
    shape = build(make)(*inputs).shape[1:]

    def batches(batch_size, seed):
        rows = batch_size // len(inputs[0])
        args = tuple(tensor.repeat(rows, *[1] * (tensor.dim() - 1)) for tensor in inputs)
        return lambda step: Batch(args, {}, torch.zeros(batch_size, *shape))

    asked = experiment(make, split="pipezoo.splitters.replay.split", num_microbatches=4, batch_size=4 * ROWS, **changes)
    data = PythonComponent("data", name, made=batches)
    return ending(replace(asked, data=data), folder)


@pytest.mark.parametrize("name", UNCUT)
def test_every_model_trains_exactly_in_the_order_that_splits_backwards(tmp_path, name):
    order = "pipezoo.schedules.zbv.zbv"
    stages = 4 if name not in ("structured", "in_place", "checkpointed") else 2
    order = order if stages == 4 else "pipezoo.schedules.zb_h1.zb_h1"
    code, verdict = trains(tmp_path, name, schedule=order, num_stages=stages, steps=2)
    assert (code, verdict) == (0, "close" if name == "classifier" else "exact")
