from __future__ import annotations

import pytest

from pipezoo.errors import ArgumentError
from pipezoo.planner.devices.options import DeviceOptions
from tests.planner.devices.worlds import SIZES, options


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"devices": 0}, "devices=0: must be an int >= 1"),
        ({"pp": (4,), "dp": (5,), "tp": (2,)}, "devices=16: pp=4 x dp=5 x tp=2 is 40; valid: 40"),
        ({"pp": (1, 2), "dp": (3,), "tp": (2,)}, "devices=16: pp=1 or 2 x dp=3 x tp=2 is 6 or 12; valid: 6, 12"),
        ({"memory": "lots"}, "memory=lots: must be a number > 0, or text like 2GB"),
        ({"reserve": 1.0}, "reserve=1.0: must be a number in 0..1"),
        ({"tp_overlap": 1.5}, "tp_overlap=1.5: must be a number in 0..1"),
        ({"rows": ()}, "rows=(): must be a list with at least one entry"),
        ({"tp": (0,)}, "tp=0: must be an int >= 1"),
        ({"schedules": ("1f1",)}, "schedules=1f1: unknown word (did you mean 1f1b?)"),
        ({"orders": (("pp", "dp"),)}, "orders=('pp', 'dp'): each must name pp, dp and tp once"),
        ({"dp_with": ("ordered",)}, "dp_with=ordered: unknown word"),
        ({"precision": "bf17"}, "precision=bf17: unknown word (did you mean bf16?)"),
        ({"sequence_parallel": 1}, "sequence_parallel=1: must be true or false"),
        ({"transformer": {"hiden": 3}}, "transformer.hiden=3: no such key"),
        ({"transformer": {"heads": 12}}, "transformer.heads=12: does not divide hidden=1024"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(changed, message):
    with pytest.raises(ArgumentError) as error:
        options(**changed)
    assert str(error.value).startswith(message)


def test_a_transformer_needs_all_of_its_sizes():
    with pytest.raises(ArgumentError, match=r"transformer\.ffn: is missing"):
        DeviceOptions(16, {name: size for name, size in SIZES.items() if name != "ffn"}, 32)
    with pytest.raises(ArgumentError, match="must have the sizes of a transformer"):
        DeviceOptions(16, 3, 32)  # type: ignore[arg-type]
