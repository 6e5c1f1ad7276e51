from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipezoo.results.bubble import WORDS, percent_parts, sentence

NONE = dict.fromkeys(WORDS, 0.0)


def test_it_says_what_a_bubble_is_made_of():
    causes = NONE | {"fill_and_drain": 0.441, "order": 0.07, "slowed": 0.347}

    assert sentence(0.858, causes, "6 ranks share 2 cores") == (
        "85.8 % = 44.1 fill and drain + 7.0 order + 34.7 slowed actions (6 ranks share 2 cores)"
    )


def test_a_part_that_hides_another_one_is_taken_off():
    assert sentence(0.25, NONE | {"fill_and_drain": 0.3, "uneven_stages": -0.05}) == (
        "25.0 % = 30.0 fill and drain - 5.0 uneven stages"
    )


def test_a_pipeline_without_a_bubble_has_no_parts():
    assert sentence(0.0, NONE) == "0.0 %"


@given(st.lists(st.floats(-0.2, 0.5), min_size=6, max_size=6))
def test_printed_parts_add_up_to_the_printed_bubble(shares):
    whole, parts = percent_parts(sum(shares), dict(zip(WORDS, shares, strict=True)))

    assert round(sum(parts.values()), 6) == whole
    assert all(abs(parts[name] - 100 * share) < 0.1 + 1e-9 for name, share in zip(WORDS, shares, strict=True))
