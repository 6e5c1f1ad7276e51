from __future__ import annotations

import pytest

from pipezoo.costs.unit import unit
from pipezoo.schedules.grouped_interleaved_1f1b import grouped_interleaved_1f1b
from pipezoo.schedules.interleaved_1f1b import interleaved_1f1b
from pipezoo.simulator.simulate import predict


@pytest.mark.parametrize("p", [1, 2, 4])
@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("v", [1, 2, 3])
def test_groups_of_as_many_microbatches_as_ranks_are_interleaved_1f1b(p, rounds, v):
    assert grouped_interleaved_1f1b(p, rounds * p, v) == interleaved_1f1b(p, rounds * p, v)


@pytest.mark.parametrize(
    ("p", "m", "v", "group"),
    [(2, 6, 2, 3), (4, 8, 2, 8), (4, 12, 2, 6), (4, 14, 2, 8), (4, 24, 3, 8), (8, 24, 2, 12), (1, 4, 3, 2)],
)
def test_bubble_and_memory(p, m, v, group):
    schedule = grouped_interleaved_1f1b(p, m, v, group)

    prediction = predict(schedule, unit(p * v, v, F=v, I=v, W=v))

    assert prediction["makespan_seconds"] == 3 * (m * v + p - 1)
    most = min(m * v, 2 * (p - 1) + (v - 1) * group + 1)
    assert max(prediction["peak_memory"]) * v == pytest.approx(most)


def test_a_larger_group_hides_a_slower_hop():
    cost = unit(8, 2, p2p=0.5)
    small, large = (predict(grouped_interleaved_1f1b(4, 24, 2, group), cost)["makespan_seconds"] for group in (4, 6))
    assert large < small


def test_a_smaller_rest_comes_last():
    first = [str(action) for action in grouped_interleaved_1f1b(2, 5, 2, 3).order[0] if action.op == 0]
    assert first == ["0F0", "0F1", "0F2", "2F0", "2F1", "2F2", "0F3", "0F4", "2F3", "2F4"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((4, 8, 2, 3), "microbatch_group_size=3: must be an int in 4..8"),
        ((4, 8, 2, 9), "microbatch_group_size=9: must be an int in 4..8"),
        ((4, 3, 2, None), "num_microbatches=3: a group has 4 of them; valid: >= 4"),
        (
            (4, 14, 2, None),
            "num_microbatches=14: groups of 4 leave 2, fewer than the 4 ranks; valid: 12, 16",
        ),
    ],
)
def test_groups_that_cannot_be(arguments, text):
    with pytest.raises(ValueError, match=r"valid|must be") as error:
        grouped_interleaved_1f1b(*arguments)
    assert str(error.value) == text
