from __future__ import annotations

import pytest

from pipezoo.errors import ArgumentError
from pipezoo.planner.devices.transformer import Transformer
from tests.planner.devices.worlds import SIZES


def gpt(layers: int, hidden: int, heads: int, **more: object) -> Transformer:
    plain = {"ffn": 4 * hidden, "vocabulary": 51200, "sequence": 2048, "gated": False, "tied": True, "dropout": True}
    return Transformer(layers, hidden, heads, **(plain | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        (gpt(96, 12288, 96), 174.6),
        (gpt(128, 25600, 160), 1008.0),
        (Transformer(80, 8192, 64, 28672, 128256, 8192, kv_heads=8), 70.6),
        (Transformer(126, 16384, 128, 53248, 128256, 8192, kv_heads=8), 405.8),
    ],
)
def test_models_have_as_many_parameters_as_their_papers_say(model, billions):
    assert model.parameters / 1e9 == pytest.approx(billions, abs=0.06)


@pytest.mark.parametrize("recomputed", [False, True])
def test_flops_are_those_of_the_formula_of_the_sc21_paper(recomputed):
    batch, s, layers, h, v = 1536, 2048, 96, 12288, 51200
    forwards = 4 if recomputed else 3
    formula = forwards * (24 * batch * s * layers * h**2 + 4 * batch * s**2 * layers * h) + 6 * batch * s * h * v
    assert gpt(96, 12288, 96).step_flops(batch, recomputed) == pytest.approx(formula)


def test_a_step_of_the_readme_of_megatron_takes_138_teraflops():
    """32 s for 175 B, 1536 rows, 1024 GPUs (README of NVIDIA/Megatron-LM at commit 2e90a342)."""
    assert gpt(96, 12288, 96).step_flops(1536, recomputed=True) / 32 / 1024 / 1e12 == pytest.approx(138, abs=1)


@pytest.mark.parametrize(
    ("tp", "sequence_parallel", "bytes_of_a_token"),
    [
        (1, False, 34 * 12288 + 5 * 96 * 2048),
        (8, False, 10 * 12288 + 24 * 12288 / 8 + 5 * 96 * 2048 / 8),
        (8, True, (34 * 12288 + 5 * 96 * 2048) / 8),
    ],
)
def test_activations_are_those_of_korthikanti(tp, sequence_parallel, bytes_of_a_token):
    assert gpt(96, 12288, 96, flash=False).activation_bytes(tp, sequence_parallel) == pytest.approx(bytes_of_a_token)


def test_what_a_block_leaves_out_it_does_not_keep():
    plain = gpt(2, 1024, 16, flash=False).activation_bytes(1, True)
    assert gpt(2, 1024, 16).activation_bytes(1, True) == plain - 5 * 16 * 2048
    assert gpt(2, 1024, 16, flash=False, dropout=False).activation_bytes(1, True) == plain - 2 * 1024 - 3 * 16 * 2048
    assert gpt(2, 1024, 16).input_bytes(4, True) == 2 * 1024 / 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers": 0}, "layers=0: must be an int >= 1"),
        ({"heads": 12}, "heads=12: does not divide hidden=1024"),
        ({"kv_heads": 3}, "kv_heads=3: does not divide heads=16"),
        ({"kv_heads": 0}, "kv_heads=0: must be an int >= 1"),
        ({"gated": 1}, "gated=1: must be true or false"),
    ],
)
def test_sizes_that_do_not_go_up_are_refused(changed, message):
    with pytest.raises(ArgumentError) as error:
        Transformer(**(SIZES | changed))
    assert str(error.value).startswith(message)
