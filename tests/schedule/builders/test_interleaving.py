from __future__ import annotations

import pytest

from pipezoo.schedule.builders.interleaving import microbatches_per_round, take_turns
from pipezoo.schedule.builders.phases import unroll


@pytest.mark.parametrize(
    ("num_ranks", "num_microbatches", "per_round"), [(2, 4, 2), (4, 3, 3), (4, 10, 5), (1, 7, 1), (3, 5, 5)]
)
def test_rounds_are_equal(num_ranks, num_microbatches, per_round):
    assert microbatches_per_round(num_ranks, num_microbatches) == per_round


def test_forwards_go_from_the_first_slot_to_the_last_and_backwards_in_reverse():
    steps = take_turns(unroll((8, "F"), (8, "B")), per_round=2, num_slots=2)
    assert steps.slot.tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0]
    assert steps.microbatch.tolist() == 2 * [0, 1, 0, 1, 2, 3, 2, 3]


def test_uneven_rounds_are_refused_with_the_nearest_counts():
    with pytest.raises(ValueError, match=r"^num_microbatches=13: 3 ranks take them in 4 equal rounds; valid: 12, 15$"):
        microbatches_per_round(3, 13)
