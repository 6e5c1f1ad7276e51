from __future__ import annotations

import pytest

from pipezoo.validators import unknown


@pytest.mark.parametrize(
    ("word", "meant"), [("zbw", "zbv"), ("ZBV", "zbv"), ("gpip", "gpipe"), ("1F1B", "1f1b"), ("interleaved", None)]
)
def test_the_word_that_was_meant_is_named(word, meant):
    text = unknown("schedule", word, ["zbv", "gpipe", "1f1b"])
    assert text == f"unknown schedule{f' (did you mean {meant}?)' if meant else ''}; valid: 1f1b, gpipe, zbv"


def test_no_choice_at_all_is_said():
    assert unknown("key", "x", []) == "unknown key; valid: none"
