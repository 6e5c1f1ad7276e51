"""What we predict of published runs, and that docs/large-worlds.md shows just that."""

from __future__ import annotations

import statistics

import pytest

from benchmarks import large_worlds
from benchmarks.published_runs import FITTED, H100, LLAMA3, SC21, h100, llama3, sc21

ALL = slice(0, None)
HELD_OUT = slice(1, None, FITTED.step)


def errors(runs, predict, which):
    return [abs(predict(run)[0] / run.achieved - 1) for run in runs[which]]


@pytest.mark.parametrize(
    ("runs", "predict", "which", "median", "largest"),
    [
        (SC21, sc21, HELD_OUT, 0.03, 0.05),
        (SC21, sc21, FITTED, 0.03, 0.05),
        (H100, h100, HELD_OUT, 0.08, 0.22),
        (LLAMA3, llama3, ALL, 0.03, 0.03),
    ],
    ids=["sc21", "sc21-fitted", "h100", "llama3"],
)
def test_predictions_are_as_far_off_as_the_page_says(runs, predict, which, median, largest):
    found = errors(runs, predict, which)
    assert statistics.median(found) < median
    assert max(found) < largest


def test_the_tables_of_the_page_are_what_the_program_says():
    page = large_worlds.PAGE.read_text(encoding="utf-8")
    assert large_worlds.written(page, large_worlds.tables()) == page
    for name in ("sc21", "h100", "llama3", "llama3-in-memory", "plans"):
        assert f"<!-- table: {name} -->" in page
