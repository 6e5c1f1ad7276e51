"""The models of PyTorch's pipelining tests: numbers of a seed, forwards by hand, and readable refusals."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch.nn.functional import linear, relu

import pipezoo.models

# Taken from PyTorch's own classes: sha256 over names and bytes of the state_dict, its first 16 digits.
DIGESTS = [
    ("ExampleCode", (8,), 0, "c33369936280350b"),
    ("ExampleCode", (8,), 1, "3d2d73518fdaffde"),
    ("ExampleCode", (8, 6), 0, "c33369936280350b"),
    ("ExampleCode", (8, 6), 1, "3d2d73518fdaffde"),
    ("ModelWithKwargs", (8,), 0, "18ca40a23fdb6762"),
    ("ModelWithKwargs", (8,), 1, "0741eee26a57e493"),
    ("ModelWithKwargs", (8, 8), 0, "18ca40a23fdb6762"),
    ("ModelWithKwargs", (8, 8), 1, "0741eee26a57e493"),
    ("ModelWithParamAlias", (8,), 0, "771c1bc9dbfc38e7"),
    ("ModelWithParamAlias", (8,), 1, "cc39c164ade51da6"),
    ("MLPModule", (8,), 0, "622c5b3b47d15d12"),
    ("MLPModule", (8,), 1, "88ec5dc20611d6d8"),
    ("MLPKWargModule", (8, 0), 0, "622c5b3b47d15d12"),
    ("MLPKWargModule", (8, 0), 1, "88ec5dc20611d6d8"),
    ("MultiMLP", (8, 3), 0, "ae70c6b5e822a21b"),
    ("MultiMLP", (8, 3), 1, "ae73da638c32a427"),
    ("MultiMLPKwargs", (8, 3), 0, "ae70c6b5e822a21b"),
    ("MultiMLPKwargs", (8, 3), 1, "ae73da638c32a427"),
    ("MLPModuleWithDw", (8,), 0, "0e2b0c9e7dab969f"),
    ("MLPModuleWithDw", (8,), 1, "02596c53e420bb1f"),
    ("MultiMLPWithDw", (8, 3), 0, "4e800dd8363ffad1"),
    ("MultiMLPWithDw", (8, 3), 1, "f774c5c805a4d8f8"),
]


def build(name, *arguments, seed=0):
    torch.manual_seed(seed)
    return getattr(pipezoo.models, name)(*arguments)


def rows(*shape, seed=9):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def digest(state):
    whole = hashlib.sha256()
    for name, tensor in state.items():
        whole.update(name.encode())
        whole.update(tensor.numpy().tobytes())
    return whole.hexdigest()[:16]


def layer(parameters, name, x):
    return linear(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"])


def example_code(p, splits, x):
    x = relu(layer(p, "lin0", relu(x @ p["mm_param0"]))) + p["cval"]
    x = x @ p["mm_param1"]
    for i in range(1, splits - 1):
        x = relu(layer(p, f"lin{i}", x))
    return x


def with_kwargs(p, splits, x, y):
    x = relu(layer(p, "lin0", x @ p["mm_param0"] + y))
    x = relu(layer(p, "lin1", x @ p["mm_param1"]))
    for i in range(2, splits):
        x = relu(layer(p, f"lin{i}", x))
    return x


def multi_mlp(p, n_layers, x):
    for i in range(n_layers):
        x = layer(p, f"layers.{i}.net2", relu(layer(p, f"layers.{i}.net1", x)))
    return x


def multi_mlp_with_dw(p, n_layers, x):
    for i in range(n_layers):
        x = relu(x @ p[f"layers.{i}.fc1_weight"].T + p[f"layers.{i}.fc1_bias"])
        x = x @ p[f"layers.{i}.fc2_weight"].T + p[f"layers.{i}.fc2_bias"]
    return x


@pytest.mark.parametrize(("name", "arguments", "seed", "expected"), DIGESTS)
def test_a_seed_gives_the_state_dict_of_the_original_bit_for_bit(name, arguments, seed, expected):
    assert digest(build(name, *arguments, seed=seed).state_dict()) == expected


@pytest.mark.parametrize("splits", range(2, 9))
def test_example_code_is_its_formula(splits):
    model, x = build("ExampleCode", 8, splits), rows(4, 8)
    assert torch.equal(model(x), example_code(model.state_dict(), splits, x))


@pytest.mark.parametrize("splits", range(2, 9))
def test_model_with_kwargs_is_its_formula(splits):
    model, x, y = build("ModelWithKwargs", 8, splits), rows(4, 8), rows(4, 8, seed=3)
    assert torch.equal(model(x, y), with_kwargs(model.state_dict(), splits, x, y))


def test_the_default_y_is_256_rows_of_512_zeros():
    model, x = build("ModelWithKwargs"), rows(256, 512)
    assert torch.equal(model(x), model(x, torch.zeros(256, 512)))
    with pytest.raises(RuntimeError, match="must match"):
        model(x[:3])


def test_model_with_param_alias_is_its_formula_and_shares_every_parameter():
    model, x, y = build("ModelWithParamAlias", 8), rows(4, 8), rows(4, 8, seed=3)
    assert torch.equal(model(x, y), with_kwargs(model.state_dict(), 2, x, y))
    assert [name for name, _ in model.named_parameters()] == ["mm_param1", "lin1.weight", "lin1.bias"]
    assert model.mm_param0 is model.mm_param1
    assert model.lin0 is model.lin1


@pytest.mark.parametrize("name", ["MultiMLP", "MultiMLPKwargs"])
def test_stacks_of_perceptrons_are_their_formula(name):
    model, x = build(name, 8, 3), rows(4, 8)
    assert torch.equal(model(x), multi_mlp(model.state_dict(), 3, x))


def test_the_unused_kwarg_is_unused():
    model, x = build("MultiMLPKwargs", 8, 3), rows(4, 8)
    assert torch.equal(model(x, unused_kwarg=torch.full((4,), torch.nan)), model(x))
    assert [module.layer_num for module in model.layers] == [0, 1, 2]


@pytest.mark.parametrize("toggled", [False, True])
def test_multi_mlp_with_dw_is_its_formula_with_either_backward(toggled):
    model, x = build("MultiMLPWithDw", 8, 3), rows(4, 8)
    if toggled:
        model.toggle()
    assert torch.equal(model(x), multi_mlp_with_dw(model.state_dict(), 3, x))


@pytest.mark.parametrize("name", ["MultiMLP", "MultiMLPKwargs", "MultiMLPWithDw"])
def test_the_split_spec_cuts_before_every_layer_but_the_first(name):
    spec = build(name, 8, 3).split_spec
    assert {key: place.name for key, place in spec.items()} == {"layers.1": "BEGINNING", "layers.2": "BEGINNING"}


@pytest.mark.parametrize("name", ["ExampleCode", "ModelWithKwargs"])
@pytest.mark.parametrize("splits", [9, 1, 0, -1, 2.5, True, "6"])
def test_splits_out_of_range_are_refused(name, splits):
    with pytest.raises(ValueError, match="splits=") as error:
        build(name, 8, splits)
    assert str(error.value) == f"splits={splits!r}: must be an int in 2..8"


@pytest.mark.parametrize(
    "name",
    ["ExampleCode", "ModelWithKwargs", "ModelWithParamAlias", "MLPModule", "MultiMLP", "MultiMLPKwargs",
     "MLPModuleWithDw", "MultiMLPWithDw"],
)  # fmt: skip
@pytest.mark.parametrize("d_hid", [0, -1, 2.5, None, "16", True])
def test_a_width_that_is_no_positive_int_is_refused(name, d_hid):
    with pytest.raises(ValueError, match="d_hid=") as error:
        build(name, d_hid)
    assert str(error.value) == f"d_hid={d_hid!r}: must be an int >= 1"


@pytest.mark.parametrize("name", ["MultiMLP", "MultiMLPKwargs", "MultiMLPWithDw"])
@pytest.mark.parametrize("n_layers", [0, -3, 1.0])
def test_a_stack_without_a_layer_is_refused(name, n_layers):
    with pytest.raises(ValueError, match=f"n_layers={n_layers}: must be an int >= 1"):
        build(name, 8, n_layers)
