from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET

import pytest

from pipezoo.report.colors import COLOURS, INKS
from pipezoo.report.svg import lay_out, to_png, to_svg
from pipezoo.schedule.action import Op
from tests.support.timelines import timeline

SVG = "{http://www.w3.org/2000/svg}"
# What a person without one kind of cone sees, in linear RGB (Machado, Oliveira and Fernandes, 2009, severity 1).
SIGHTS = {
    "all three cones": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "no red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "no blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def linear(colour: str) -> list[float]:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def seen(colour: str, sight: str) -> list[float]:
    """CIE Lab of the colour as seen."""
    rgb = [min(1.0, max(0.0, sum(a * b for a, b in zip(row, linear(colour), strict=True)))) for row in SIGHTS[sight]]
    white = (0.9505, 1.0, 1.089)
    rows = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    xyz = [sum(a * b for a, b in zip(row, rgb, strict=True)) / w for row, w in zip(rows, white, strict=True)]
    x, y, z = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in xyz)
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)]


def luminance(colour: str) -> float:
    return sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear(colour), strict=True))


def test_in_grey_each_op_is_a_clear_step_lighter_than_the_one_before() -> None:
    steps = [seen(COLOURS[op], "all three cones")[0] for op in (Op.F, Op.B, Op.I, Op.W)]
    assert all(lighter - darker >= 12 for darker, lighter in itertools.pairwise(steps)), steps


@pytest.mark.parametrize("sight", SIGHTS)
def test_any_two_ops_are_told_apart_whatever_the_eye(sight: str) -> None:
    for left, right in itertools.combinations(COLOURS, 2):
        assert math.dist(seen(COLOURS[left], sight), seen(COLOURS[right], sight)) >= 20, (left, right)


@pytest.mark.parametrize("op", COLOURS)
def test_letters_can_be_read_on_their_colour(op: Op) -> None:
    light, dark = sorted((luminance(COLOURS[op]), luminance(INKS[op])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.4


def test_a_box_is_as_long_as_its_action_took() -> None:
    picture = lay_out([timeline(2, 2)], width=1000)
    boxes = {box.tip.partition(":")[0]: box for box in picture.boxes if box.tip}
    assert set(boxes) == {"0F0", "0F1", "0B0", "0B1", "1F0", "1F1", "1B0", "1B1"}
    assert boxes["0B0"].width == pytest.approx(2 * boxes["0F0"].width, rel=0.02)
    assert boxes["1F0"].x == pytest.approx(boxes["0F1"].x)
    assert boxes["1F0"].y > boxes["0F1"].y
    assert boxes["0F0"].fill == COLOURS[Op.F]


def test_the_svg_is_one_document_with_every_name_in_it() -> None:
    root = ET.fromstring(to_svg(lay_out([timeline(2, 2, seconds=1e-3)], title="a <b> & \x1b \u202e")))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"0F0", "1B1", "rank 1", "forward", "9 ms"} <= set(texts)
    assert "a <b> & \\x1b \\u202e" in texts
    assert root.find(f"{SVG}script") is None


def test_predicted_and_measured_share_one_axis() -> None:
    picture = lay_out([timeline(2, 2), timeline(2, 2, seconds=2.0, source="measured")])
    first, second = (
        [box for box in picture.boxes if box.tip.startswith("0")][part] for part in (slice(4), slice(4, 8))
    )
    left = first[0].x
    ends = [max(box.x + box.width for box in boxes) - left for boxes in (first, second)]
    assert ends[0] == pytest.approx(ends[1] / 2, rel=0.01)


def test_a_row_of_very_many_actions_is_drawn_as_runs() -> None:
    picture = lay_out([timeline(4, 4000)])  # 32 000 spans
    assert len(picture.boxes) < 4 * 2400
    assert all(box.width > 0 for box in picture.boxes)


def test_a_png_is_a_png() -> None:
    pytest.importorskip("PIL", reason="Pillow (the extra png) is not installed")
    png = to_png(lay_out([timeline(2, 2)], width=400), scale=1)
    assert png.startswith(b"\x89PNG\r\n")
    assert int.from_bytes(png[16:20], "big") == 400


def test_without_pillow_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(
        ValueError, match=r"output=\*\.png: needs Pillow; install it with: pip install 'pipezoo\[png\]'"
    ):
        to_png(lay_out([timeline(2, 2)]))
