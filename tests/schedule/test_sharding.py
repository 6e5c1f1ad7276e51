"""UNSHARD and RESHARD stand where they can stand, or the order is refused."""

from __future__ import annotations

import pytest

from pipezoo.errors import ScheduleError
from pipezoo.schedule.schedule import Schedule


def build(*ranks: str) -> Schedule:
    return Schedule.from_orders([row.split() for row in ranks])


@pytest.mark.parametrize(
    "order",
    [
        "0UNSHARD 0F0 0B0 0RESHARD",
        "0UNSHARD 0F0 0B0",
        "0UNSHARD 0F0 0RESHARD 0UNSHARD 0B0 0RESHARD 0REDUCE_GRAD",
        "0UNSHARD 1UNSHARD 0F0 1F0 1B0 0B0 1RESHARD 0RESHARD",
        "0F0 1UNSHARD 1F0 1B0 0B0 1RESHARD",
        "0UNSHARD 0F0 0I0 0W0 0RESHARD",
    ],
)
def test_a_stage_is_gathered_before_it_computes_and_freed_after(order):
    assert build(order).num_actions == len(order.split())


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("0F0 0UNSHARD 0B0", "rank 0: 0F0 computes with parameters that are not gathered; 0UNSHARD first"),
        ("0UNSHARD 0F0 0RESHARD 0B0", "rank 0: 0B0 computes with parameters that are not gathered; 0UNSHARD first"),
        ("0UNSHARD 0UNSHARD 0F0 0B0", "rank 0: 0UNSHARD gathers what is gathered already"),
        ("0UNSHARD 0F0 0UNSHARD 0B0", "rank 0: 0UNSHARD gathers what is gathered already"),
        ("0UNSHARD 0F0 0B0 0RESHARD 0RESHARD", "rank 0: 0RESHARD frees what is not gathered; 0UNSHARD first"),
        ("0RESHARD 0UNSHARD 0F0 0B0", "rank 0: 0RESHARD frees what is not gathered; 0UNSHARD first"),
        (
            "0UNSHARD 0RESHARD 0UNSHARD 0F0 0B0",
            "rank 0: 0RESHARD frees what was gathered for nothing: its stage computes nothing in between",
        ),
        (
            "0UNSHARD 0F0 0B0 0RESHARD 0UNSHARD",
            "rank 0: 0UNSHARD gathers for nothing: its stage computes nothing after it",
        ),
        ("1UNSHARD 0F0 1F0 1B0 0B0 0RESHARD", "rank 0: 0F0 computes with parameters that are not gathered"),
    ],
)
def test_an_impossible_place_is_named(order, said):
    with pytest.raises(ScheduleError) as error:
        build(order)
    assert str(error.value).startswith(said)
