from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from pipezoo.report.ascii import draw, draw_together
from pipezoo.results.units import time_text
from pipezoo.simulator.timeline import Timeline
from tests.support.timelines import timeline


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("rank ")]


def test_three_ranks_and_four_microbatches_are_drawn_with_their_names() -> None:
    assert draw(replace(timeline(3, 4), unit="unit"), 80).splitlines() == [
        "rank 0 |F0-|F1|F2-               |B0====|F3-|B1====    |B2====    |B3====| 67 %",
        "rank 1     |F0|F1-       |B0=====|F2|B1=====|F3|B2=====   |B3=====       | 67 %",
        "rank 2        |F0-|B0====|F1-|B1====|F2-|B2====|F3-|B3====               | 67 %",
        "       '                 '                  '                 '",
        "       0                 5                  10                15 units",
        "bubble 33.3 % of the makespan, 33.3 % of the span",
        "F forward, B backward, right: busy",
    ]


def test_where_there_is_room_an_action_says_its_stage_too() -> None:
    assert rows(draw(timeline(2, 2), 80))[1] == (
        "rank 1        |1F0----|1B0==========|1F1----|1B1==========               | 67 %"
    )


def test_where_names_do_not_fit_letters_keep_the_proportions() -> None:
    row = rows(draw(timeline(8, 64), 80))[7]
    cells = row[len("rank 7 ") : row.rindex("|")]
    assert set(cells) == {"F", "B", " "}
    assert 1.8 <= cells.count("B") / cells.count("F") <= 2.2


def test_halves_of_the_backward_are_told_apart_without_colour() -> None:
    text = draw(timeline(4, 16, halves=True), 80)
    assert set("".join(row[7 : row.rindex("|")] for row in rows(text))) == set("FIW ")
    assert "I input gradient, W weight gradient" in text


def test_a_column_as_long_as_three_actions_shows_all_three_kinds_in_turn() -> None:
    count = 3 * 55  # 55 columns of exactly F I W each
    start = np.arange(count, dtype=np.float64)
    ints = np.zeros(count, dtype=np.int32)
    op = np.tile(np.array([0, 2, 3], dtype=np.int8), 55)
    row = rows(draw(Timeline(ints, ints, op, ints, start, start + 1, 1, "predicted"), 69))[0]
    cells = row[7 : row.rindex("|")]
    assert [cells.count(letter) for letter in "FIW"] == pytest.approx([len(cells) / 3] * 3, abs=1)
    assert not re.search("FFF|III|WWW", cells)


@pytest.mark.parametrize("width", [40, 80, 100, 213])
@pytest.mark.parametrize(("num_ranks", "num_microbatches"), [(2, 2), (4, 8), (8, 64), (64, 64)])
def test_no_line_is_wider_than_asked_and_all_is_ascii(width: int, num_ranks: int, num_microbatches: int) -> None:
    text = draw(timeline(num_ranks, num_microbatches, jitter=0.3), width)
    assert len(rows(text)) == num_ranks
    assert len({len(row) for row in rows(text)}) == 1
    picture = text.splitlines()[: num_ranks + 2]
    assert max(map(len, picture)) <= width
    assert text.isascii()
    assert "\x1b" not in text


def test_of_very_many_ranks_evenly_chosen_ones_are_shown() -> None:
    text = draw(timeline(200, 4), 80)
    assert len(rows(text)) == 50
    assert "(every 4th of 200 ranks)" in text


def test_predicted_stands_above_measured_on_one_axis() -> None:
    late = timeline(2, 2, seconds=2e-3, source="measured")
    late = Timeline(late.rank, late.stage, late.op, late.microbatch, late.start + 5, late.end + 5, 2, "measured")
    text = draw_together([timeline(2, 2, seconds=1e-3), late], 80).splitlines()
    assert text[0] == "predicted, 9 ms, bubble 33.3 % of the makespan, 33.3 % of the span"
    assert text[3] == "measured, 18 ms, bubble 33.3 % of the makespan, 33.3 % of the span"
    half, whole = rows("\n".join(text))[0::2]
    assert half.index("|B1") - 7 == pytest.approx((whole.index("|B1") - 7) / 2, abs=1)  # half the time, half the way
    assert text[-2].endswith("ms")


def test_colour_is_escapes_around_the_same_columns() -> None:
    plain, painted = draw(timeline(3, 4), 80), draw(timeline(3, 4), 80, colour=True)
    stripped = re.sub("\x1b\\[[0-9;]*m", "", painted)
    assert stripped != painted
    assert [len(row) for row in rows(stripped)] == [len(row) for row in rows(plain)]
    assert all(line.endswith("%") for line in rows(painted))  # no colour runs on into the next line


def test_a_timeline_without_spans_is_drawn_as_idle() -> None:
    empty = np.empty(0)
    ints = empty.astype(np.int32)
    text = draw(Timeline(ints, ints, empty.astype(np.int8), ints, empty, empty, 2, "measured"), 80)
    assert [row[7:].strip() for row in rows(text)] == ["|  0 %", "|  0 %"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2.5, "s", "2.5 s"),
        (0.0123456, "s", "12.35 ms"),
        (0.000004, "s", "4 us"),
        (0.00099999, "s", "1 ms"),
        (0.0, "s", "0 us"),
        (54.0, "unit", "54 units"),
    ],
)
def test_a_time_is_told_in_the_unit_that_suits_it(value: float, unit: str, text: str) -> None:
    assert time_text(value, unit) == text
