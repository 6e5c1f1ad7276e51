from __future__ import annotations

import pytest
import torch

from pipezoo.data import regression


def test_a_batch_is_float32_rows_of_d_hid_features():
    batch = regression.batches(6, 0, d_hid=5)(0)
    assert [tensor.shape for tensor in (*batch.args, batch.target)] == [(6, 5), (6, 5)]
    assert {tensor.dtype for tensor in (*batch.args, batch.target)} == {torch.float32}
    assert batch.kwargs == {}


def test_extra_inputs_have_a_row_per_sample_and_differ_from_x():
    batch = regression.batches(6, 0, d_hid=5, extra=["y", "z"])(0)
    assert {name: tensor.shape for name, tensor in batch.kwargs.items()} == {"y": (6, 5), "z": (6, 5)}
    assert not torch.equal(batch.kwargs["y"], batch.args[0])
    assert not torch.equal(batch.kwargs["y"], batch.kwargs["z"])


def test_a_batch_is_a_function_of_seed_and_step_whatever_was_asked_before():
    asked_in_order, asked_alone = regression.batches(4, 3, d_hid=5), regression.batches(4, 3, d_hid=5)
    sequence = [asked_in_order(step) for step in range(3)]
    torch.manual_seed(123)
    torch.testing.assert_close(asked_alone(2), sequence[2], rtol=0, atol=0)
    assert not torch.equal(sequence[0].args[0], sequence[1].args[0])
    assert not torch.equal(sequence[0].args[0], regression.batches(4, 4, d_hid=5)(0).args[0])


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    regression.batches(4, 3, d_hid=5)(0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_target_is_one_affine_map_of_x_at_every_step():
    batch = regression.batches(40, 0, d_hid=5)
    first, second = batch(0), batch(1)
    x = torch.cat([first.args[0], torch.ones(40, 1)], dim=1)
    solution = torch.linalg.lstsq(x, first.target).solution
    predicted = torch.cat([second.args[0], torch.ones(40, 1)], dim=1) @ solution
    torch.testing.assert_close(predicted, second.target, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("d_hid", 0), ("d_hid", "8")])
def test_sizes_that_are_no_positive_ints_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value!r}: must be an int >= 1"):
        regression.batches(**{"batch_size": 4, "seed": 0, "d_hid": 8, name: value})


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed=-1: must be an int >= 0"):
        regression.batches(4, -1, d_hid=8)
