from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional, Protocol, Union

import pytest

from pipezoo.experiment.type_check import expected_by, fit, hints_of


class Sized(Protocol):
    size: int


FITS = [
    (int, 3),
    (float, 3),
    (float, 0.5),
    (bool, True),
    (str, "a"),
    (None, None),
    (int | None, None),
    (Optional[int], 4),  # noqa: UP045
    (Union[int, str], "a"),  # noqa: UP007
    (Literal["mean", "sum"], "sum"),
    (list[int], [1, 2]),
    (Sequence[str], ["a"]),
    (tuple[float, float], [0.9, 0.99]),
    (tuple[int, ...], [1, 2, 3]),
    (dict[str, int], {"a": 1}),
    (Mapping[str, Any], {}),
    (Path, "a/b"),
    (str | Path, "a/b"),
    (Callable[[int], int], len),
    (Any, object()),
    (Sized, 3),
]
MISFITS = [
    (int, 2.0),
    (int, True),
    (int, "6"),
    (int, None),
    (float, "fast"),
    (float, True),
    (bool, 1),
    (str, 1),
    (str, ["a"]),
    (int | None, "6"),
    (Literal["mean", "sum"], "none"),
    (list[int], ["a"]),
    (list[int], 3),
    (Sequence[str], "abc"),
    (tuple[float, float], [0.9]),
    (tuple[float, float], 0.9),
    (tuple[int, ...], [1, "a"]),
    (dict[str, int], []),
    (Path, 3),
    (Callable[[int], int], 3),
]


@pytest.mark.parametrize(("hint", "value"), FITS)
def test_a_value_that_an_annotation_allows(hint, value):
    assert fit(value, hint)


@pytest.mark.parametrize(("hint", "value"), MISFITS)
def test_a_value_that_an_annotation_does_not_allow(hint, value):
    assert not fit(value, hint)


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "an int"),
        (int | None, "an int or null"),
        (float, "a number"),
        (bool, "true or false"),
        (Literal["mean", "sum"], "one of these; valid: mean, sum"),
        (list[int], "a list, each an int"),
        (tuple[float, float], "a list of 2: [a number, a number]"),
        (dict[str, int], "a dict"),
        (Mapping[str, int] | None, "a dict or null"),
        (list[int] | None, "a list (each an int) or null"),
        (tuple[int, ...] | str, "a list (each an int) or text"),
    ],
)
def test_an_annotation_in_words(hint, words):
    assert expected_by(hint) == words


def test_annotations_that_cannot_be_evaluated_allow_everything():
    def function(a: NotThere) -> None:  # type: ignore[name-defined]  # noqa: F821
        return None

    assert hints_of(function) == {}
