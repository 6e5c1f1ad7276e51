from __future__ import annotations

import pytest

from pipezoo.planner.devices.candidate import Excluded, candidates, layers_of
from pipezoo.planner.devices.options import DeviceOptions
from pipezoo.planner.devices.transformer import Transformer
from tests.planner.devices.worlds import SIZES, options


def made(asked: DeviceOptions) -> tuple[list, Excluded]:
    excluded = Excluded()
    return [*candidates(asked, 4, excluded)], excluded


@pytest.mark.parametrize(
    ("layers", "stages", "each"),
    [
        (8, 4, [2, 2, 2, 2]),
        (8, 8, [1] * 8),
        (14, 4, [3, 4, 4, 3]),  # as Llama 3 405B: 126 layers on 16 x 8 stages
        (126, 128, [0] + [1] * 126 + [0]),
        (9, 4, None),
        (1, 1, [1]),
    ],
)
def test_layers_are_even_but_for_one_at_either_end(layers, stages, each):
    assert layers_of(Transformer(**(SIZES | {"layers": layers})), stages) == each


def test_every_candidate_uses_all_devices_and_all_rows_once():
    found, _ = made(options())
    assert len(found) == len(set(found)) > 100
    for one in found:
        assert one.grid.size == 16
        assert one.grid.dp * one.rows * one.microbatches == 32
        assert one.schedule not in ("zb_h1", "zbv") or not one.recompute


@pytest.mark.parametrize(
    ("changed", "reason", "example"),
    [
        ({"tp": (3,)}, "heads", "16 heads, 4 of keys and values, ffn 4096: not divisible by tp=3"),
        ({"pp": (3,)}, "devices", "16 devices are not divisible by pp=3 x tp=1"),
        ({"dp": (16,), "tp": (4,)}, "dp", "pp=1 x tp=4 needs dp=4"),
        ({"global_batch": 7}, "batch", "global_batch=7 is not divisible by dp=16 x 1 rows"),
        ({"pp": (16,), "tp": (1,)}, "layers", "8 layers on 16 x 1 stages are not even"),
        (
            {"pp": (8,), "tp": (1,), "stages_per_rank": (2,), "transformer": {"layers": 14}},
            "layers",
            "14 layers are too few for 8 x 2 stages",
        ),
    ],
)
def test_what_is_no_candidate_is_counted_with_its_reason(changed, reason, example):
    _, excluded = made(options(**changed))
    assert excluded.examples[reason] == example
    assert excluded.counts[reason] >= 1


def test_orders_that_are_alike_are_tried_once():
    found, _ = made(options(pp=(1,), tp=(4,), schedules=("1f1b",), rows=(1,), recompute=("none",), dp_with=("fsdp",)))
    assert [one.grid.order for one in found] == [("pp", "dp", "tp")]
