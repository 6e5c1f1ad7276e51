"""What a user reads who asks a schedule for what it cannot do."""

from __future__ import annotations

import pytest

from tests.support import zoo


@pytest.mark.parametrize(
    ("name", "counts", "text"),
    [
        (
            "grouped_interleaved_1f1b",
            (4, 6, 2),
            "num_microbatches=6: groups of 4 leave 2, fewer than the 4 ranks; valid: 4, 8",
        ),
        ("interleaved_1f1b", (2, 5, 2), "num_microbatches=5: 2 ranks take them in 2 equal rounds; valid: 4, 6"),
        (
            "interleaved_zero_bubble",
            (4, 11, 2),
            "num_microbatches=11: 4 ranks take them in 2 equal rounds; valid: 10, 12",
        ),
        ("zbv", (2, 4, 3), "stages_per_rank=3: zbv runs exactly 2 stages on each rank, placed as a V; valid: 2"),
        (
            "dualpipev",
            (2, 4, 1),
            "stages_per_rank=1: dualpipev runs exactly 2 stages on each rank, placed as a V; valid: 2",
        ),
        (
            "1f1b",
            (2, 4, 2),
            "stages_per_rank=2: 1f1b runs one stage on each rank (interleaved_1f1b and looped_bfs run more); valid: 1",
        ),
        (
            "gpipe",
            (2, 4, 2),
            "stages_per_rank=2: gpipe runs one stage on each rank (looped_bfs and interleaved_1f1b run more); valid: 1",
        ),
        (
            "zb_h1",
            (2, 4, 2),
            "stages_per_rank=2: zb_h1 runs one stage on each rank (interleaved_zero_bubble runs more); valid: 1",
        ),
        ("zbv", (0, 4, 2), "num_ranks=0: must be an int >= 1"),
    ],
)
def test_the_error_names_the_argument_and_what_would_work(name, counts, text):
    with pytest.raises(ValueError, match=r"; valid: |must be") as error:
        zoo.function(name)(*counts)
    assert str(error.value) == text


@pytest.mark.parametrize("name", ["interleaved_1f1b", "interleaved_zero_bubble"])
def test_the_microbatches_that_an_error_proposes_are_valid(name):
    function = zoo.function(name)
    refused = 0
    for num_ranks in range(1, 9):
        for num_microbatches in range(1, 40):
            try:
                function(num_ranks, num_microbatches)
            except ValueError as error:
                refused += 1
                valid = [int(word) for word in str(error).split("valid: ")[1].split(", ")]
                assert valid[0] < num_microbatches < valid[1]
                assert all(function(num_ranks, count).num_microbatches == count for count in valid)
    assert refused > 50


def test_fewer_microbatches_than_stages_are_welcome_where_the_order_has_no_need_of_them():
    for name in sorted(set(zoo.GENERATED) - {"grouped_interleaved_1f1b"}):  # its groups have a microbatch for each rank
        for num_microbatches in (1, 2, 3):
            assert zoo.function(name)(4, num_microbatches).num_microbatches == num_microbatches
