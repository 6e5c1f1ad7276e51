"""A small line chart as SVG, coloured by the page's style sheet, so that it follows light and dark.

3 +
  |   o---o            values up, labels or steps along; a hole where a value is not finite
0 +---+---+---
  2   4   8
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from pipezoo.report.axis import ticks

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 440, 200, 54, 12, 12, 28
MOST_POINTS = 800  # of a line; of more, the evenly chosen ones are drawn
KINDS = 8  # line styles in the style sheet

Points = Sequence[tuple[float, float]]


def line_chart(
    lines: Mapping[str, Points],
    what: str,
    labels: Sequence[str] | None = None,
    from_zero: bool = True,
    dots: bool = False,
) -> Markup:
    """The chart as one ``<svg>``, for a page that carries the style sheet ``page.css``.

    Args:
        lines: points ``(x, y)`` of each line, by its name.
        what: the chart in words, for those who hear the page.
        labels: names of x = 0, 1, 2, ...; None: x counts from the first to the last one.
        from_zero: the vertical axis begins at 0; else at the smallest value.
        dots: mark every point.
    """
    points = [(x, y) for line in lines.values() for x, y in line if math.isfinite(y)]
    if not points:
        return Markup('<p class="none">no values</p>')
    low_x, high_x = (0.0, len(labels) - 1.0) if labels else (min(x for x, _ in points), max(x for x, _ in points))
    low = 0.0 if from_zero else min(y for _, y in points)
    high = max(max(y for _, y in points), low)
    pad = 0.5 if labels else 0.0

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x + pad) / ((high_x - low_x + 2 * pad) or 1.0)
        up = (y - low) / ((high - low) or 1.0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, what)]
    for tick in ticks(high, 4, low):
        _, y = at(low_x, tick)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(LEFT, WIDTH - RIGHT, y=_px(y))
        )
        parts.append(Markup('<text x="{}" y="{}" class="right">{}</text>').format(LEFT - 8, _px(y + 4), f"{tick:.4g}"))
    for x, label in _places(labels, low_x, high_x):
        parts.append(
            Markup('<text x="{}" y="{}" class="middle">{}</text>').format(_px(at(x, low)[0]), HEIGHT - 8, label)
        )
    for kind, (name, line) in enumerate(lines.items()):
        style = f"k{kind % KINDS}" if len(lines) <= KINDS else "k"
        parts.append(Markup('<g class="{}"><title>{}</title>').format(style, name))
        parts += [_polyline([at(x, y) for x, y in run]) for run in _runs(line)]
        if dots or len(line) == 1:
            spots = [at(x, y) for x, y in line if math.isfinite(y)]
            parts += [Markup('<circle cx="{}" cy="{}" r="4"/>').format(_px(x), _px(y)) for x, y in spots]
        parts.append(Markup("</g>"))
    return Markup("").join([*parts, Markup("</svg>")])


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


def _places(labels: Sequence[str] | None, low: float, high: float) -> list[tuple[float, str]]:
    if labels is None:
        return [(tick, f"{tick:.6g}") for tick in ticks(high, 6, low)]
    every = math.ceil(len(labels) / 12)
    return [(float(i), _short(label)) for i, label in enumerate(labels) if i % every == 0]


def _short(text: str) -> str:
    return text if len(text) <= 14 else text[:13] + "…"


def _px(value: float) -> str:
    return f"{value:.1f}"
