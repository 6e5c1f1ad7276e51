"""A backward by the engine itself: what the public one computes, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pipezoo.runtime.autograd_engine import run_backward

Backward = Callable[..., None]
WAYS = [run_backward, torch.autograd.backward]


def gradients(backward: Backward, with_loss: bool) -> list[torch.Tensor | None]:
    torch.manual_seed(0)
    x, w, unused = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True), torch.randn(1)
    y = (x * w).sin()
    backward((y.sum(),) if with_loss else (y, x * 2), (None,) if with_loss else (torch.ones(3), torch.randn(3)))
    return [x.grad, w.grad, unused.grad]


@pytest.mark.parametrize("with_loss", [True, False])
def test_it_is_the_public_backward(with_loss: bool) -> None:
    ours, public = (gradients(way, with_loss) for way in WAYS)
    assert ours[2] is None is public[2]
    assert all(torch.equal(a, b) for a, b in zip(ours[:2], public[:2], strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("way", WAYS)
def test_a_tensor_that_was_changed_in_place_is_refused(way: Backward) -> None:
    x = torch.randn(3, requires_grad=True)
    kept = x * 1.0
    y = kept.square()
    with torch.no_grad():
        kept.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        way((y,), (torch.ones(3),))


@pytest.mark.parametrize("way", WAYS)
def test_a_gradient_of_another_shape_is_refused(way: Backward) -> None:
    y = torch.randn(3, requires_grad=True) * 2
    with pytest.raises(RuntimeError, match="shape"):
        way((y,), (torch.ones(4),))
