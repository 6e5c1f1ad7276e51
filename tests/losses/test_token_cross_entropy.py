from __future__ import annotations

import pytest
import torch

from pipezoo.losses import TokenCrossEntropy

LOGITS = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])  # one row, two positions, two classes
TARGET = torch.tensor([[1, 0]])


def test_the_loss_is_the_mean_or_sum_over_positions():
    per_position = [torch.log(torch.tensor(2.0)), torch.log1p(torch.exp(torch.tensor(-2.0)))]
    assert TokenCrossEntropy("sum")(LOGITS, TARGET) == pytest.approx(sum(per_position).item())
    assert TokenCrossEntropy()(LOGITS, TARGET) == pytest.approx(sum(per_position).item() / 2)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"target=\[2\]: logits have shape \[1, 2, 2\]; valid: \[1, 2\]"):
        TokenCrossEntropy()(LOGITS, TARGET[0])


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="reduction=none: unknown; valid: mean, sum"):
        TokenCrossEntropy("none")
