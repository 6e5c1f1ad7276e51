"""A small line chart as SVG, coloured by the page's style sheet, so that it follows light and dark.

3 +
  |   o---o            values up, labels or steps along; a hole where a value is not finite
0 +---+---+---
  2   4   8
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipezoo.report.scales import ticks

WIDTH, HEIGHT, LEFT, RIGHT, TOP = 440, 172, 54, 12, 12  # pixels; what is written below the chart comes on top of HEIGHT
LETTER = 7  # pixels of a label's letter
MOST_LABELS, LONGEST_LABEL = 16, 18
MOST_POINTS = 800  # of a line; of more, the evenly chosen ones are drawn
KINDS = 8  # line styles in the style sheet

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Frame:
    """The values at the edges of the chart."""

    low_x: float
    high_x: float
    low: float
    high: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point."""
        across = (x - self.low_x) / ((self.high_x - self.low_x) or 1.0)
        up = (y - self.low) / ((self.high - self.low) or 1.0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - up * (HEIGHT - TOP)


def line_chart(
    lines: Mapping[str, Points],
    what: str,
    labels: Sequence[str] | None = None,
    from_zero: bool = True,
    dots: bool = False,
    log: bool = False,
) -> Markup:
    """The chart as one ``<svg>``, for a page that carries the style sheet ``page.css``.

    Args:
        lines: points ``(x, y)`` of each line, by its name.
        what: the chart in words, for those who hear the page.
        labels: names of x = 0, 1, 2, ...; None: x counts from the first to the last one.
        from_zero: the vertical axis begins at 0; else at the smallest value.
        dots: mark every point.
        log: the vertical axis is logarithmic; all values are > 0 then.
    """
    if log:
        lines = {name: [(x, math.log10(y) if y > 0 else math.nan) for x, y in line] for name, line in lines.items()}
        from_zero = False
    points = [(x, y) for line in lines.values() for x, y in line if math.isfinite(y)]
    if not points:
        return Markup('<p class="none">no values</p>')
    low = min(0.0 if from_zero else math.inf, *(y for _, y in points), points[0][1])
    written_as = (lambda value: f"{10**value:.3g}") if log else "{:.4g}".format
    high = max(*(y for _, y in points), points[0][1])
    edges = (-0.5, len(labels) - 0.5) if labels else (min(x for x, _ in points), max(x for x, _ in points))
    frame = Frame(*edges, low, high)
    below, written = _labels(frame, labels)
    parts = [Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, below, what)]
    parts += [*_grid(frame, written_as), *written]
    for kind, (name, line) in enumerate(lines.items()):
        style = f"k{kind % KINDS}" if len(lines) <= KINDS else "k"
        parts.append(Markup('<g class="{}"><title>{}</title>').format(style, name))
        parts += [_polyline([frame.at(x, y) for x, y in run]) for run in _runs(line)]
        if dots or len(line) == 1:
            spots = [frame.at(x, y) for x, y in line if math.isfinite(y)]
            parts += [Markup('<circle cx="{}" cy="{}" r="4"/>').format(_px(x), _px(y)) for x, y in spots]
        parts.append(Markup("</g>"))
    return Markup("").join([*parts, Markup("</svg>")])


def scatter_chart(points: Sequence[tuple[float, float, str, bool]], what: str) -> Markup:
    """Points ``(x, y, name, is_joined)``; those that are joined are connected from left to right.

    Args:
        what: the chart in words, for those who hear the page.
    """
    known = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    if not known:
        return Markup('<p class="none">no values</p>')
    xs, ys = [point[0] for point in known], [point[1] for point in known]
    margin = 0.04 * (max(xs) - min(xs) or 1.0)
    frame = Frame(min(xs) - margin, max(xs) + margin, min(0.97 * min(ys), 0.999 * min(ys)), max(ys))
    below, written = _labels(frame, None)
    parts = [Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, below, what)]
    parts += [*_grid(frame, "{:.4g}".format), *written, Markup('<g class="k0">')]
    parts.append(_polyline([frame.at(x, y) for x, y, _, joined in sorted(known) if joined]))
    parts.append(Markup("</g>"))
    for x, y, name, joined in known:
        at_x, at_y = frame.at(x, y)
        spot = '<g class="{}"><circle cx="{}" cy="{}" r="{}"><title>{}</title></circle></g>'
        parts.append(Markup(spot).format("k0" if joined else "k", _px(at_x), _px(at_y), 5 if joined else 3, name))
    return Markup("").join([*parts, Markup("</svg>")])


def _grid(frame: Frame, written_as: Callable[[float], str]) -> Iterator[Markup]:
    for tick in ticks(frame.high, 4, frame.low):
        _, y = frame.at(frame.low_x, tick)
        yield Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(LEFT, WIDTH - RIGHT, y=_px(y))
        yield Markup('<text x="{}" y="{}" class="right">{}</text>').format(LEFT - 8, _px(y + 4), written_as(tick))


def _labels(frame: Frame, labels: Sequence[str] | None) -> tuple[int, list[Markup]]:
    """What is written along the bottom, slanted where it is too long to stand side by side; and where that ends."""
    if labels is None:
        places = [(tick, f"{tick:.6g}") for tick in ticks(frame.high_x, 6, frame.low_x)]
    else:
        every = math.ceil(len(labels) / MOST_LABELS)
        places = [(float(i), _short(label)) for i, label in enumerate(labels) if i % every == 0]
    longest = max(len(label) for _, label in places)
    slanted = longest * LETTER > (WIDTH - LEFT - RIGHT) / len(places)
    texts = []
    for place, label in places:
        x, y = _px(frame.at(place, frame.low)[0]), HEIGHT + (14 if slanted else 20)
        turned = Markup(' transform="rotate(-35 {} {})"').format(x, y) if slanted else ""
        side = "right" if slanted else "middle"
        texts.append(Markup('<text x="{}" y="{}" class="{}"{}>{}</text>').format(x, y, side, turned, label))
    return HEIGHT + (24 + round(0.6 * LETTER * longest) if slanted else 28), texts


def _polyline(points: Points) -> Markup:
    return Markup('<polyline points="{}"/>').format(" ".join(f"{_px(x)},{_px(y)}" for x, y in points))


def _runs(line: Points) -> list[Points]:
    """The line cut where a value is missing, and thinned to what can be seen."""
    step = math.ceil(len(line) / MOST_POINTS)
    kept = [point for i, point in enumerate(line) if i % step == 0 or i == len(line) - 1]
    runs: list[list[tuple[float, float]]] = [[]]
    for point in kept:
        if math.isfinite(point[1]):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if len(run) > 1]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"


def _px(value: float) -> str:
    return f"{value:.1f}"
