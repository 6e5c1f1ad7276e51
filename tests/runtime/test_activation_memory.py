"""Activation memory is counted as autograd keeps it: from the forward that saves to the backward that drops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipezoo.runtime.activation_memory import ActivationMeter
from pipezoo.schedule.action import Op

ROWS, WIDTH = 8, 16
ACTIVATION = ROWS * WIDTH * 4  # bytes of one float32 activation


def test_a_linear_layer_keeps_its_input_and_nothing_of_its_weights() -> None:
    layer = nn.Linear(WIDTH, WIDTH)
    meter = ActivationMeter(layer.parameters(), [0])
    meter.turn(0, Op.F)
    with meter.saving(0):
        output = layer(torch.ones(ROWS, WIDTH, requires_grad=True))
    meter.turn(0, Op.B)
    output.sum().backward()
    assert meter.read() == {"activation_bytes": {0: ACTIVATION}, "freed_by_input_grad": {0: 0}, "peak": {0: ACTIVATION}}


def test_a_tensor_that_two_ops_save_counts_once() -> None:
    meter = ActivationMeter([], [0])
    x = torch.ones(ROWS, WIDTH, requires_grad=True)
    meter.turn(0, Op.F)
    with meter.saving(0):
        y = x * 2
        output = y.sin() + y.cos()  # both save y
    assert meter.read()["peak"] == {0: ACTIVATION}
    assert output.requires_grad


def test_microbatches_are_views_of_one_batch_and_count_their_own_rows() -> None:
    layer = nn.Linear(WIDTH, WIDTH)
    meter = ActivationMeter(layer.parameters(), [0])
    for part in torch.ones(4 * ROWS, WIDTH).tensor_split(4):
        meter.turn(0, Op.F)
        with meter.saving(0):
            layer(part).sum().backward()
    assert meter.read()["peak"] == {0: ACTIVATION}


def test_the_peak_of_a_rank_is_over_all_its_stages() -> None:
    first, second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
    meter = ActivationMeter([*first.parameters(), *second.parameters()], [0, 0])
    outputs = []
    for stage, layer in enumerate((first, second)):
        meter.turn(stage, Op.F)
        with meter.saving(stage):
            outputs.append(layer(torch.ones(ROWS, WIDTH) + stage))
    assert meter.read()["peak"] == {0: 2 * ACTIVATION}
    assert len(outputs) == 2


def test_a_graph_that_is_dropped_without_a_backward_takes_what_it_saved_with_it() -> None:
    meter = ActivationMeter([], [0])
    with meter.saving(0):
        output = torch.ones(ROWS, WIDTH, requires_grad=True).relu()  # saves its own output
    locked = meter.read()["peak"], dict(meter._held)
    del output
    assert locked == ({0: ACTIVATION}, {0: ACTIVATION})
    assert meter._held == {0: 0}


def test_a_saved_tensor_that_was_changed_in_place_is_refused_as_without_a_meter() -> None:
    meter = ActivationMeter([], (0,))
    x = torch.ones(3, requires_grad=True)
    with meter.saving(0):
        y = x.exp()
        y += 1
        with pytest.raises(
            RuntimeError, match=r"modified by an inplace operation.*is at version 1; expected version 0"
        ):
            y.sum().backward()


def test_a_tensor_that_was_changed_before_it_was_saved_is_right() -> None:
    meter = ActivationMeter([], (0,))
    x = torch.ones(3, requires_grad=True)
    with meter.saving(0):
        y = x * 1
        y += 1
        y.exp().sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, torch.full((3,), 2.0).exp())
