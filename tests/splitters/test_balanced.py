from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from pipezoo.models import GPT, ExampleCode
from pipezoo.splitters.balanced import split

IDS = torch.zeros(2, 16, dtype=torch.int64)


def names_of(model, stages):
    """The modules of the model's chain in each stage."""
    known = {id(module): name for name, module in model.named_modules() if name}
    return [[known[id(module)] for module in stage.chain] for stage in stages]


def large_vocabulary():
    torch.manual_seed(0)
    return GPT(vocab_size=2048, width=32, depth=6, context=16)


def test_by_parameters_the_ends_of_a_large_vocabulary_stand_alone():
    model = large_vocabulary()
    names = names_of(model, split(model, 3, (IDS,), by="parameters"))
    assert names[0] == ["embedding"]
    assert names[1] == [f"blocks.{i}" for i in range(6)]
    assert names[2] == ["norm", "head"]


def test_by_flops_the_embedding_is_free_and_the_head_is_not():
    model = large_vocabulary()
    names = names_of(model, split(model, 2, (IDS,), by="flops"))
    assert names[0][0] == "embedding"
    assert names[1][-1] == "head"
    assert len(names[0]) > len(names[1]) + 2


def test_by_time_heavy_modules_are_kept_apart():
    torch.manual_seed(0)
    light = [nn.Linear(8, 8) for _ in range(3)]
    model = nn.Sequential(*light, nn.Linear(8, 1500), nn.Linear(1500, 1500), nn.Linear(1500, 1500))
    names = names_of(model, split(model, 2, (torch.randn(64, 8),), by="time"))
    assert "4" in names[0]
    assert names[1] == ["5"]


def test_no_cut_has_a_lighter_heaviest_stage():
    model = large_vocabulary()
    modules = [model.embedding, *model.blocks, model.norm, model.head]
    counts = [sum(p.numel() for p in module.parameters()) for module in modules]
    possible = [
        max(sum(counts[:a]), sum(counts[a:b]), sum(counts[b:])) for a, b in itertools.combinations(range(1, 9), 2)
    ]
    stages = split(model, 3, (IDS,), by="parameters")
    assert max(sum(p.numel() for p in stage.parameters()) for stage in stages) == min(possible)


def test_the_stages_give_the_output_of_the_model_and_hold_its_parameters():
    model = large_vocabulary()
    stages = split(model, 3, (IDS,))
    value = IDS
    for stage in stages:
        value = stage(value)
    assert torch.equal(value, model(IDS))
    assert {id(p) for stage in stages for p in stage.parameters()} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("by", ["parameters", "flops", "time"])
def test_a_model_that_is_no_chain_is_cut_at_its_own_marks(by):
    model = ExampleCode(d_hid=8, splits=4)
    example = (torch.randn(2, 8),)
    stages = split(model, 2, example, by=by, repeats=1)
    value = example[0]
    for stage in stages:
        value = stage(*value) if isinstance(value, tuple) else stage(value)
    assert len(stages) == 2
    assert torch.equal(value, model(*example))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"by": "weight"}, "by=weight: unknown measure; valid: parameters, flops, time"),
        ({"repeats": 0}, "repeats=0: must be an int >= 1"),
        ({"num_stages": 10}, "num_stages=10: the model has 9 modules in a row; valid: 1..9"),
    ],
)
def test_what_cannot_be_is_named(arguments, text):
    given = {"num_stages": 2, "by": "parameters", **arguments}
    with pytest.raises(ValueError, match=r"valid|must be") as error:
        split(large_vocabulary(), given.pop("num_stages"), (IDS,), **given)
    assert str(error.value) == text
