from __future__ import annotations

import pytest

from pipezoo.validators import check_int


@pytest.mark.parametrize("value", [2, 5, 8])
def test_an_int_in_range_is_returned(value):
    assert check_int("splits", value, 2, 8) == value


@pytest.mark.parametrize("value", [9, 1, 0, -1, 2.5, 2.0, True, "6", None])
def test_anything_else_is_refused_with_name_value_and_range(value):
    with pytest.raises(ValueError, match="splits=") as error:
        check_int("splits", value, 2, 8)
    assert str(error.value) == f"splits={value!r}: must be an int in 2..8"


def test_a_range_may_be_open_above():
    assert check_int("d_hid", 10**9, 1) == 10**9
    with pytest.raises(ValueError, match=r"^d_hid=0: must be an int >= 1$"):
        check_int("d_hid", 0, 1)
