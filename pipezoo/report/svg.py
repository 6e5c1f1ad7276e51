"""Timelines as a picture for a paper or a slide, SVG or PNG: a row per rank, a box per action, one time axis.

    predicted, 9 ms, bubble 33.3 % ...
    rank 0  [0F0][0F1]         [  0B0  ][  0B1  ]          lay_out  ->  boxes and labels  ->  to_svg
    rank 1       [1F0][  1B0  ][1F1][  1B1  ]                                             ->  to_png (Pillow)
            0        2         4        6       8 ms

Rows with more actions than can be seen become runs of the op that took most of each half pixel.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipezoo.errors import ConfigError
from pipezoo.report.colors import COLOURS, INKS, MEANING, OTHER
from pipezoo.report.scales import ops_by_column, spans_by_rank, ticks
from pipezoo.results.sanitize import printable
from pipezoo.results.units import scale_of, time_text
from pipezoo.schedule.action import Action, Op
from pipezoo.simulator.timeline import Timeline

WHITE, IDLE, INK, FAINT = "#ffffff", "#f3f4f6", "#1b1f24", "#6b7280"
LETTER = 0.62  # width of a letter over its height, on the safe side
THINNEST = 1.5  # pixels; rows whose actions are narrower on average are drawn as runs
MOST_PIXELS = 20_000  # of a PNG's side


class Box(NamedTuple):
    """A filled rectangle, in pixels from the top left; ``tip`` is shown when the mouse rests on it."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    tip: str = ""


class Label(NamedTuple):
    """Text whose middle line is at ``y``; ``anchor`` is ``start``, ``middle`` or ``end``, of the text at ``x``."""

    x: float
    y: float
    text: str
    size: float
    fill: str = INK
    anchor: str = "start"


@dataclass
class Picture:
    """What to paint on white, boxes first."""

    width: float
    height: float = 0.0
    boxes: list[Box] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)


def lay_out(timelines: Sequence[Timeline], width: int = 1200, title: str = "") -> Picture:
    """Place everything. Each timeline counts from its own first start."""
    timelines = [timeline.shifted() for timeline in timelines]
    longest = max((timeline.makespan for timeline in timelines), default=0.0) or 1.0
    num_rows = sum(timeline.num_ranks for timeline in timelines)
    row = min(24.0, max(6.0, 1200.0 / max(1, num_rows)))
    size = min(12.0, row * 0.6)
    left = 14.0 + LETTER * 12 * len(f"rank {max((t.num_ranks for t in timelines), default=1) - 1}")
    plot = width - left - 16.0
    picture = Picture(width, 12.0)
    if title:
        picture.labels.append(Label(12, picture.height + 10, printable(title), 16))
        picture.height += 30
    for timeline in timelines:
        bubble = timeline.bubbles()
        text = f"{timeline.source}, {time_text(timeline.makespan, timeline.unit)}, "
        text += f"bubble {100 * bubble['makespan']:.1f} % of the makespan, {100 * bubble['span']:.1f} % of the span"
        picture.labels.append(Label(12, picture.height + 8, printable(text), 12))
        picture.height += 22
        every = math.ceil(14 / row)  # ranks that get a name
        for rank, spans in enumerate(spans_by_rank(timeline)):
            if rank % every == 0:
                name = Label(
                    left - 8, picture.height + row / 2, f"rank {rank}", min(12, row * 0.9 * every), FAINT, "end"
                )
                picture.labels.append(name)
            _place_row(picture, timeline, spans, left, plot, longest, row, size)
            picture.height += row
        picture.height += 10
    _place_axis(picture, left, plot, longest, timelines[0].unit if timelines else "s")
    _place_legend(picture, timelines, left)
    return picture


def to_svg(picture: Picture) -> str:
    """The picture as an SVG document; text is escaped, and nothing outside the file is referred to."""
    size = f'width="{picture.width:g}" height="{picture.height:g}" viewBox="0 0 {picture.width:g} {picture.height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="Helvetica, Arial, DejaVu Sans, sans-serif">'
    return "\n".join([head, f'<rect width="100%" height="100%" fill="{WHITE}"/>', *_svg_parts(picture), "</svg>", ""])


def to_png(picture: Picture, scale: float = 2.0) -> bytes:
    """The picture as PNG, ``scale`` pixels for each of its own.

    Raises:
        ConfigError: Pillow is not installed (the extra ``png`` brings it).
    """
    try:
        from PIL import Image, ImageDraw, ImageFont  # type: ignore[import-not-found]
    except ImportError:
        raise ConfigError("output=*.png: needs Pillow; install it with: pip install 'pipezoo[png]'") from None
    scale = min(scale, MOST_PIXELS / max(picture.width, picture.height))
    image = Image.new("RGB", (math.ceil(picture.width * scale), math.ceil(picture.height * scale)), WHITE)
    canvas = ImageDraw.Draw(image)
    for box in picture.boxes:
        x, y = box.x * scale, box.y * scale
        right, bottom = x + box.width * scale, y + box.height * scale
        canvas.rectangle(
            (round(x), round(y), max(round(x), round(right) - 1), max(round(y), round(bottom) - 1)), box.fill
        )
    fonts = {size: ImageFont.load_default(max(1.0, size * scale)) for size in {label.size for label in picture.labels}}
    anchors = {"start": "lm", "middle": "mm", "end": "rm"}
    for label in picture.labels:
        at = (label.x * scale, label.y * scale)
        canvas.text(at, label.text, label.fill, fonts[label.size], anchors[label.anchor])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _svg_parts(picture: Picture) -> Iterator[str]:
    for box in picture.boxes:
        shape = (
            f'<rect x="{box.x:.2f}" y="{box.y:.2f}" width="{box.width:.2f}" height="{box.height:.2f}" fill="{box.fill}"'
        )
        yield f"{shape}><title>{escape(box.tip)}</title></rect>" if box.tip else f"{shape}/>"
    for label in picture.labels:
        place = (
            f'x="{label.x:.2f}" y="{label.y + 0.35 * label.size:.2f}" font-size="{label.size:g}" fill="{label.fill}"'
        )
        anchor = "" if label.anchor == "start" else f' text-anchor="{label.anchor}"'
        yield f"<text {place}{anchor}>{escape(label.text)}</text>"


def _place_row(
    picture: Picture,
    timeline: Timeline,
    spans: NDArray[np.int64],
    left: float,
    plot: float,
    longest: float,
    row: float,
    size: float,
) -> None:
    y, gap = picture.height, min(2.0, row / 6)
    picture.boxes.append(Box(left, y, plot, row - gap, IDLE))
    if len(spans) and float((timeline.end - timeline.start)[spans].mean()) * plot / longest < THINNEST:
        at = 0
        for code, run in groupby(ops_by_column(timeline, spans, longest, round(2 * plot))):
            count = len(list(run))
            if code >= 0:
                picture.boxes.append(Box(left + at / 2, y, count / 2, row - gap, COLOURS.get(Op(code), OTHER)))
            at += count
        return
    for i in spans.tolist():
        op = Op(int(timeline.op[i]))
        name = str(Action.of_row(timeline.stage[i], op, timeline.microbatch[i]))
        start, end = float(timeline.start[i]), float(timeline.end[i])
        x, width = left + start * plot / longest, (end - start) * plot / longest
        hair = min(0.8, width / 4)  # of white, between neighbours
        tip = f"{name}: {time_text(start, timeline.unit)} to {time_text(end, timeline.unit)}"
        picture.boxes.append(Box(x, y, width - hair, row - gap, COLOURS.get(op, OTHER), tip))
        for text in (name, name.lstrip("0123456789"), op.letter):
            if len(text) * LETTER * size < width - hair - 1 and size >= 5:
                ink = INKS.get(op, INK)
                picture.labels.append(Label(x + (width - hair) / 2, y + (row - gap) / 2, text, size, ink, "middle"))
                break


def _place_axis(picture: Picture, left: float, plot: float, longest: float, unit: str) -> None:
    scale, name = scale_of(longest, unit)
    y = picture.height
    picture.boxes.append(Box(left, y, plot, 1, FAINT))
    values = ticks(longest / scale, round(plot / 90))
    for tick in values:
        x = left + tick * scale / longest * plot
        picture.boxes.append(Box(x, y, 1, 5, FAINT))
        text = f"{tick:.10g}" + (f" {name}" if tick == values[-1] else "")
        picture.labels.append(Label(x, y + 14, text, 11, FAINT, "middle"))
    picture.height += 30


def _place_legend(picture: Picture, timelines: Sequence[Timeline], left: float) -> None:
    x, y = left, picture.height
    for op, meaning in MEANING.items():
        if any((timeline.op == op).any() for timeline in timelines):
            picture.boxes.append(Box(x, y, 22, 14, COLOURS.get(op, OTHER)))
            picture.labels.append(Label(x + 11, y + 7, op.letter, 10, INKS.get(op, INK), "middle"))
            picture.labels.append(Label(x + 28, y + 7, meaning, 12))
            x += 44 + LETTER * 12 * len(meaning)
    picture.height += 26
