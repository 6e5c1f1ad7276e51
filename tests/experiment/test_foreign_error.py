"""Which argument an error of code that is not ours is about."""

from __future__ import annotations

import pytest

from pipezoo.experiment.foreign_error import argument_of


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("width=9: must be even", "width=9: must be even"),
        ("width=nine: must be even", "width=9: must be even"),
        ("Invalid learning rate: -1", "lr=-1: Invalid learning rate: -1"),
        ("Invalid weight_decay value: 9", None),  # width is 9, and so is depth
        ("rate=3: unknown", None),
        ("nothing of use", None),
    ],
)
def test_an_argument_is_blamed_where_the_text_begins_with_it_or_ends_with_the_value_of_one_alone(text, line):
    found = argument_of(ValueError(text), {"width": 9, "depth": 9, "lr": -1})
    assert (None if found is None else str(found)) == line
