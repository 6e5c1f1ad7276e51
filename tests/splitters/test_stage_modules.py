from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributed.pipelining import pipe_split

from pipezoo.models import GPT, ExampleCode, MultiMLP
from pipezoo.splitters import annotated, balanced, marked, modules
from pipezoo.splitters._stage_modules import names_by_stage, stack_of

IDS = (torch.zeros(2, 8, dtype=torch.int64),)


def gpt(depth=4, **arguments):
    return GPT(vocab_size=16, width=8, depth=depth, heads=2, context=8, **arguments)


def test_a_cut_between_modules_names_them():
    model = gpt()

    assert names_by_stage(model, modules.split(model, 3, IDS)) == (
        ("embedding", "blocks.0", "blocks.1"),
        ("blocks.2", "blocks.3"),
        ("norm", "head"),
    )


@pytest.mark.parametrize("by", ["parameters", "flops"])
def test_the_names_cut_the_model_the_same_way_again(by):
    model = gpt(depth=6)
    stages = balanced.split(model, 3, IDS, by=by)

    names = names_by_stage(model, stages)
    again = modules.split(model, None, IDS, modules=[list(own) for own in names])

    for one, other in zip(stages, again, strict=True):
        assert [id(p) for p in one.parameters()] == [id(p) for p in other.parameters()]


def test_modules_without_parameters_have_their_place_too():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh())

    assert names_by_stage(model, modules.split(model, 2, (torch.zeros(2, 4),))) == (("0", "1"), ("2", "3"))


def test_a_traced_cut_that_runs_between_modules_names_them_by_their_parameters():
    model = gpt()

    assert names_by_stage(model, annotated.split(model, 2, IDS)) == (
        ("embedding", "blocks.0", "blocks.1"),
        ("blocks.2", "blocks.3", "norm", "head"),
    )


class Inside(nn.Module):
    """A model whose one block is cut in the middle."""

    def __init__(self):
        super().__init__()
        self.block = Half()
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        return self.head(self.block(x))


class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.up(x)
        pipe_split()
        return self.down(x)


class Silent(Inside):
    """Cut between its modules, one of which has no parameters."""

    def __init__(self):
        super().__init__()
        self.block = nn.Tanh()

    def forward(self, x):
        x = self.block(x)
        pipe_split()
        return self.head(x)


class Unused(Inside):
    """Cut between two modules, beside one that forward does not use."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 4)

    def forward(self, x):
        x = self.head(x)
        pipe_split()
        return self.last(x)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Inside(), "the cut goes through module block, which stages 0 and 1 share"),
        (Silent(), "the cut is traced, and block has no parameters that would tell its stage"),
    ],
)
def test_what_names_cannot_say_is_refused_with_the_reason(model, why):
    with pytest.raises(ValueError, match=why):
        names_by_stage(model, marked.split(model, 2, (torch.zeros(2, 4),)))


def test_a_module_that_forward_does_not_use_is_on_no_stage():
    model = Unused()

    assert names_by_stage(model, marked.split(model, 2, (torch.zeros(2, 4),))) == (("head",), ("last",))


def test_a_parameter_of_the_model_itself_belongs_to_no_module():
    model = ExampleCode(d_hid=4, splits=2)

    with pytest.raises(ValueError, match="parameter mm_param0 belongs to none of the modules that a stage could name"):
        names_by_stage(model, marked.split(model, 2, (torch.zeros(2, 4),)))


def test_shared_weights_are_on_two_stages_of_a_traced_cut_alone():
    model = gpt(tied=True)

    assert names_by_stage(model, modules.split(model, 2, IDS))[1][-1] == "head"
    with pytest.raises(ValueError, match="the cut goes through module embedding, which stages 0 and 1 share"):
        names_by_stage(model, annotated.split(model, 2, IDS))


def test_the_stack_is_what_holds_equal_modules_alone():
    assert stack_of(gpt()) == ("blocks.0", "blocks.1", "blocks.2", "blocks.3")
    assert stack_of(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))) == ()
    assert len(stack_of(MultiMLP(d_hid=4, n_layers=3))) == 3
