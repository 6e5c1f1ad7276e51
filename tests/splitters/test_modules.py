from __future__ import annotations

import pytest
import torch
from torch import nn

from pipezoo.models import GPT, ExampleCode, MultiMLP, MultiMLPKwargs, MultiMLPWithDw
from pipezoo.splitters.modules import split

IDS = (torch.randint(256, (2, 8), generator=torch.Generator().manual_seed(0)),)


def gpt():
    torch.manual_seed(0)
    return GPT(width=16, depth=2, heads=2, context=8)


def rows(count=4):
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(5))


def names(model, stages):
    by_id = {id(module): name for name, module in model.named_modules()}
    return [[by_id[id(module)] for module in stage.chain] for stage in stages]


def refusal(*arguments, **knobs):
    with pytest.raises(ValueError, match="=") as error:
        split(*arguments, **knobs)
    return str(error.value)


@pytest.mark.parametrize(
    ("num_stages", "expected"),
    [
        (None, [["embedding", "blocks.0", "blocks.1"], ["norm", "head"]]),
        (3, [["embedding", "blocks.0"], ["blocks.1", "norm"], ["head"]]),
        (5, [["embedding"], ["blocks.0"], ["blocks.1"], ["norm"], ["head"]]),
    ],
)
def test_children_are_dealt_evenly_with_containers_opened(num_stages, expected):
    model = gpt()
    assert names(model, split(model, num_stages, IDS)) == expected


LISTED = [["embedding"], ["blocks.0"], ["blocks.1"], ["norm", "head"]]


def test_listed_modules_are_the_stages():
    model = gpt()
    assert names(model, split(model, None, IDS, modules=LISTED)) == LISTED


def test_listed_stages_are_joined_when_fewer_are_asked():
    model = gpt()
    expected = [["embedding", "blocks.0"], ["blocks.1", "norm", "head"]]
    assert names(model, split(model, 2, IDS, modules=LISTED)) == expected


def test_a_listed_container_stands_for_what_it_holds():
    model = gpt()
    stages = split(model, None, IDS, modules=[["embedding", "blocks"], ["norm", "head"]])
    assert names(model, stages) == [["embedding", "blocks.0", "blocks.1"], ["norm", "head"]]


def test_an_input_that_the_first_module_does_not_take_ends_at_the_door():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x, ignored):
            return self.b(self.a(x))

    model = Outer()
    first, second = split(model, 2, (rows(), rows()))
    assert torch.equal(second(first(rows(), rows())), model(rows(), rows()))


def test_the_unused_kwarg_of_multi_mlp_kwargs_is_taken_and_ignored():
    model = MultiMLPKwargs(8, 4)
    first, second = split(model, 2, (rows(), rows()))
    assert torch.equal(second(first(rows(), torch.full((4,), torch.nan))), model(rows()))


def test_checking_moves_neither_buffers_nor_attributes_nor_generators():
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 8))
    state = torch.random.get_rng_state()
    split(model, 2, (rows(),))
    assert model[1].num_batches_tracked == 0
    assert torch.equal(torch.random.get_rng_state(), state)


def test_stages_put_off_weight_gradients_when_their_modules_can():
    torch.manual_seed(0)
    model, inputs = MultiMLPWithDw(8, 4), [rows(), rows() + 1]
    for x in inputs:
        model(x).square().mean().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()

    stages = split(model, 2, (rows(),))
    for stage in stages:
        stage.toggle()
    for x in inputs:
        stages[1](stages[0](x)).square().mean().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    for stage in stages * len(inputs):
        stage.compute_dW()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=0)


def test_stages_of_other_modules_offer_nothing_of_the_kind():
    assert not any(hasattr(stage, "compute_dW") for stage in split(MultiMLP(8, 4), 2, (rows(),)))


def test_a_parameter_outside_of_every_module_names_the_splitter_that_fits():
    text = refusal(ExampleCode(8, 3), 3, (rows(),))
    assert text.startswith("model=ExampleCode: parameter mm_param0 belongs to no module; split=replay fits")


def test_a_parameter_of_a_module_that_was_forgotten_is_named():
    text = refusal(gpt(), None, IDS, modules=[["embedding", "blocks"], ["head"]])
    assert text == "model=GPT: parameter norm.weight belongs to none of the modules listed; split=annotated fits"


def test_modules_in_another_order_than_the_models_are_refused():
    text = refusal(gpt(), None, IDS, modules=[["embedding", "blocks.1"], ["blocks.0", "norm", "head"]])
    assert text.startswith("model=GPT: not the chain of its modules, one after the other they give another output")


def test_a_chain_that_does_not_run_is_refused_with_the_cause():
    text = refusal(gpt(), None, IDS, modules=[["blocks", "embedding"], ["norm", "head"]])
    assert text.startswith("model=GPT: not the chain of its modules, one after the other they fail: ")


def test_an_example_that_the_model_itself_refuses_is_to_blame():
    text = refusal(MultiMLP(8, 4), 2, (torch.randn(4, 9),))
    assert text.startswith("example=[4, 9]: the forward of MultiMLP fails on it: RuntimeError: mat1 and mat2")


@pytest.mark.parametrize(
    ("num_stages", "modules", "expected"),
    [
        (6, None, "num_stages=6: the model has 5 module(s) in a row; valid: 1..5"),
        (5, LISTED, "num_stages=5: modules lists 4 stage(s); valid: 1..4"),
        (
            2,
            [["embeding"], ["blocks"]],
            "modules[0]=embeding: GPT has no such module; valid: embedding, embedding.drop, embedding.token, ...",
        ),
        (2, ["embedding", "head"], "modules[0]=embedding: must be a list of module names"),
        (2, [["embedding"], []], "modules[1]=[]: must be a list of module names"),
    ],
)
def test_wrong_arguments_are_refused(num_stages, modules, expected):
    assert refusal(gpt(), num_stages, IDS, modules=modules) == expected
