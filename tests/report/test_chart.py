from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

from pipezoo.report.chart import line_chart


def polylines(svg: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline points="(.*?)"', svg)
    return [[tuple(map(float, pair.split(","))) for pair in points.split()] for points in found]  # type: ignore[misc]


def test_a_line_rises_with_its_values_from_left_to_right() -> None:
    (line,) = polylines(line_chart({"loss": [(0, 1.0), (1, 2.0), (2, 4.0)]}, "loss"))
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    heights = [line[0][1] - y for _, y in line]
    assert round(heights[2] / heights[1]) == 3  # from 1 to 2, and from 1 to 4


def test_a_value_that_is_not_a_number_leaves_a_hole() -> None:
    svg = line_chart({"loss": [(0, 1.0), (1, 2.0), (2, math.nan), (3, math.inf), (4, 3.0), (5, 1.0)]}, "loss")
    assert [len(line) for line in polylines(svg)] == [2, 2]


def test_of_many_points_as_many_are_drawn_as_can_be_seen() -> None:
    (line,) = polylines(line_chart({"loss": [(i, 1 / (i + 1)) for i in range(100_000)]}, "loss"))
    assert len(line) <= 802


def test_without_values_it_says_so() -> None:
    assert line_chart({"loss": [(0, math.nan)]}, "loss") == '<p class="none">no values</p>'
    assert line_chart({}, "loss") == '<p class="none">no values</p>'


def test_one_value_is_a_dot() -> None:
    assert line_chart({"loss": [(0, 1.0)]}, "loss").count("<circle") == 1


def test_names_are_text_and_long_ones_are_slanted() -> None:
    labels = ["<b>", *(f"a_rather_long_schedule_{i}" for i in range(8))]
    svg = line_chart({'"><script>': [(i, i) for i in range(9)]}, "<i>", labels, dots=True)
    root = ET.fromstring(svg)
    texts = [text.text for text in root.iter("text")]
    assert "<b>" in texts
    assert "a_rather_long_sch…" in texts
    assert svg.count("rotate(-35") == 9
    assert "rotate" not in line_chart({"a": [(0, 1), (1, 2)]}, "a", ["2", "4"])
