from __future__ import annotations

import pytest
import torch
from torch.nn.functional import mse_loss, relu

from pipezoo.models import CustomLinearDx, CustomLinearDxDw, MultiMLPWithDw


def build(n_layers=3):
    """Parameters large enough for gradients that are not all noise."""
    torch.manual_seed(0)
    model = MultiMLPWithDw(8, n_layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def microbatches(count):
    torch.manual_seed(1)
    return [(torch.randn(4, 8), torch.randn(4, 8)) for _ in range(count)]


def plain_gradients(model, batches):
    """By autograd alone, from the formula."""
    p = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    for x, target in batches:
        for i in range(len(model.layers)):
            x = relu(x.mm(p[f"layers.{i}.fc1_weight"].t()) + p[f"layers.{i}.fc1_bias"])
            x = x.mm(p[f"layers.{i}.fc2_weight"].t()) + p[f"layers.{i}.fc2_bias"]
        mse_loss(x, target).backward()
    return {name: value.grad for name, value in p.items()}


def assert_gradients(model, expected):
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-6, atol=1e-6, msg=name)


def test_the_whole_backward_gives_the_gradients_of_autograd():
    model, batches = build(), microbatches(2)
    for x, target in batches:
        mse_loss(model(x), target).backward()
    assert_gradients(model, plain_gradients(model, batches))


def test_the_two_halves_give_the_gradients_of_autograd_whatever_lies_between_them():
    model, batches = build(), microbatches(3)
    model.toggle()
    for x, target in batches:
        mse_loss(model(x), target).backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    for _ in batches:
        model.compute_dW()
    assert_gradients(model, plain_gradients(model, batches))


def test_weight_gradients_come_oldest_microbatch_first():
    model, batches = build(), microbatches(2)
    model.toggle()
    for x, target in batches:
        mse_loss(model(x), target).backward()
    model.compute_dW()
    assert_gradients(model, plain_gradients(model, batches[:1]))


@pytest.mark.parametrize("toggled", [False, True])
def test_either_backward_gives_the_same_input_gradient(toggled):
    model, [(x, target)] = build(), microbatches(1)
    plain = x.clone().requires_grad_()
    mse_loss(model(plain), target).backward()
    if toggled:
        model.toggle()
    x.requires_grad_()
    mse_loss(model(x), target).backward()
    assert torch.equal(x.grad, plain.grad)


def test_the_custom_function_passes_gradcheck():
    x, weight, bias = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(3, 4), (5, 4), (5,)])
    assert torch.autograd.gradcheck(CustomLinearDxDw.apply, (x, weight, bias))


def test_the_input_half_remembers_output_gradient_and_input():
    class Layer:
        cached_context = {"a": [], "a_input": []}  # noqa: RUF012

    x, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    CustomLinearDx.apply(x, weight, torch.zeros(5), Layer, "a").sum().backward()
    assert torch.equal(Layer.cached_context["a"][0], torch.ones(3, 5))
    assert torch.equal(Layer.cached_context["a_input"][0], x)
    assert weight.grad is None


def test_compute_dw_before_toggle_and_before_a_backward_are_refused():
    model = build()
    with pytest.raises(RuntimeError, match=r"needs toggle\(\) first"):
        model.compute_dW()
    model.toggle()
    with pytest.raises(RuntimeError, match="no backward left"):
        model.compute_dW()
