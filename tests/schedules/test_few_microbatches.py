"""Fewer microbatches than ranks or stages: the order is what is left of the one that fills the pipeline."""

from __future__ import annotations

import pytest

from pipezoo.schedules.dualpipev import dualpipev
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import predict


def spelled(schedule):
    return [" ".join(str(action) for action in order) for order in schedule.order]


def test_1f1b_of_two_microbatches_on_four_ranks():
    assert spelled(one_f_one_b(4, 2)) == [
        "0F0 0F1 0B0 0B1",
        "1F0 1F1 1B0 1B1",
        "2F0 2F1 2B0 2B1",
        "3F0 3B0 3F1 3B1",
    ]


def test_dualpipev_of_one_microbatch_on_two_ranks():
    assert spelled(dualpipev(2, 1)) == ["0F0 3F0 3I0 3W0 0B0", "1F0 2F0 2B0 1B0"]


def alone(order):
    """The actions of a rank, those of a pair one by one."""
    return [part for action in order for part in action.parts or (action,)]


@pytest.mark.parametrize(("function", "per_rank"), [(one_f_one_b, 1), (dualpipev, 2)])
@pytest.mark.parametrize("num_ranks", [2, 3, 4, 7])
def test_it_is_the_full_order_without_the_microbatches_that_are_not_there(function, per_rank, num_ranks):
    full = function(num_ranks, num_ranks * per_rank)
    for num_microbatches in range(1, num_ranks * per_rank):
        few = function(num_ranks, num_microbatches)
        for rank, order in enumerate(few.order):
            kept = [str(action) for action in alone(full.order[rank]) if action.microbatch < num_microbatches]
            assert [str(action) for action in alone(order)] == kept


def test_one_microbatch_goes_there_and_back_on_1f1b():
    prediction = predict(one_f_one_b(8, 1), Cost.from_dict({"stages": {"F": 1, "B": 2}}, 8))
    assert prediction["makespan_seconds"] == 8 * (1 + 2)
