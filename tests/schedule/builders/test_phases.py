from __future__ import annotations

import pytest

from pipezoo.schedule.builders.phases import unroll
from pipezoo.schedule.schedule import Schedule


def spelled(*phases, stages=(0, 1)):
    """The order of one rank, as it would be read aloud; legality is not asked here."""
    op, stage, microbatch, overlap = unroll(*phases).on(stages)
    overlap = [False] * len(op) if overlap is None else overlap
    columns = zip(op, stage, microbatch, overlap, strict=True)
    return " ".join(
        f"{'(' if first else ''}{stage}{'FBIW'[op]}{microbatch}" for op, stage, microbatch, first in columns
    )


def test_microbatches_come_in_turn_over_all_phases():
    assert spelled((2, "F"), (2, "F B"), (2, "B")) == "0F0 0F1 0F2 0B0 0F3 0B1 0B2 0B3"


def test_a_digit_is_the_slot_of_a_stage():
    assert spelled((1, "F0 F1"), (1, "F0 B1"), stages=(2, 5)) == "2F0 5F0 2F1 5B0"


def test_whole_and_split_backwards_of_a_slot_share_one_count():
    assert spelled((1, "B"), (1, "I"), (1, "B"), (1, "I")) == "0B0 0I1 0B2 0I3"


def test_a_weight_half_takes_the_microbatch_of_its_input_half():
    assert spelled((1, "B I"), (1, "B I"), (2, "W0")) == "0B0 0I1 0B2 0I3 0W1 0W3"


def test_a_plain_weight_half_follows_the_input_halves_of_all_slots():
    assert spelled((1, "I1 I0 I1"), (3, "W")) == "1I0 0I0 1I1 1W0 0W0 1W1"


def test_a_pattern_twice_in_a_phase_counts_on():
    assert spelled((2, "F F B")) == "0F0 0F1 0B0 0F2 0F3 0B1"


def test_parentheses_make_a_pair():
    assert spelled((1, "F0 F1"), (1, "(F0 B1)")) == "0F0 1F0 (0F1 1B0"


def test_a_phase_that_is_repeated_zero_times_is_not_there():
    assert spelled((0, "F1 B1"), (1, "F"), (0, "W"), (1, "B")) == "0F0 0B0"


def test_later_microbatches_can_be_left_out():
    steps = unroll((3, "F"), (3, "B")).up_to(2)
    assert steps.op.tolist() == [0, 0, 1, 1]
    assert steps.microbatch.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("pattern", ["F x", "FB", "f0", "2F0", "F-1"])
def test_a_mistyped_pattern_is_shown(pattern):
    with pytest.raises(ValueError, match="in the pattern"):
        unroll((1, pattern))


def test_columns_of_ranks_become_a_schedule():
    ranks = (unroll((2 - rank, "F"), (rank, "B F"), (2 - rank, "B")).on([rank]) for rank in range(2))
    schedule = Schedule.from_columns(ranks, "small")
    assert schedule == Schedule.from_orders([["0F0", "0F1", "0B0", "0B1"], ["1F0", "1B0", "1F1", "1B1"]])
