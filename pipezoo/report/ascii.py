"""A timeline as text: a row per rank, a column per slice of time.

    rank 0 |0F0-|0F1-|0F2-|              |0B0=======|0B1=======|0B2=======|  69 %
    rank 1      |1F0-|1B0=======|1F1-|1B1=======|...                         75 %
           0        10        20        30        40        50 ms
    bubble 33.3 % of the makespan, 20.0 % of the span

Where actions are too narrow for their names a column shows the letter of the op that took most of it, and a blank
where the rank was idle for most of it. So a row of any number of actions costs one row of text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipezoo.report.colors import MEANING
from pipezoo.report.scales import ops_by_column, spans_by_rank, ticks
from pipezoo.results.units import scale_of, time_text
from pipezoo.schedule.action import Action, Op
from pipezoo.simulator.timeline import Timeline

MOST_ROWS = 64  # of one timeline; of more ranks, evenly chosen ones are shown
NARROWEST = 20  # columns of time, however narrow the terminal
FILL = {Op.F: "-", Op.B: "=", Op.I: "~", Op.W: "+"}
PAINT = {Op.F: "38;5;231;48;5;25", Op.B: "38;5;231;48;5;130", Op.I: "38;5;16;48;5;215", Op.W: "38;5;16;48;5;229"}
STYLES = ("", "short", "full")


def draw(timeline: Timeline, width: int, colour: bool = False) -> str:
    """The timeline in lines of at most ``width`` characters, without a line break at the end.

    Args:
        timeline: what to draw.
        width: columns to fill; the terminal's width is a good one.
        colour: paint the ops with terminal escapes; without, the text is plain ASCII.
    """
    return draw_together([timeline], width, colour)


def draw_together(timelines: Sequence[Timeline], width: int, colour: bool = False) -> str:
    """Several timelines, one above the other on one time axis, each from its own first start. As :func:`draw`."""
    timelines = [timeline.shifted() for timeline in timelines]
    longest = max((timeline.makespan for timeline in timelines), default=0.0)
    digits = len(str(max((timeline.num_ranks for timeline in timelines), default=1) - 1))
    margin = len("rank ") + digits + 1
    columns = max(NARROWEST, width - margin - len("| 100 %"))
    lines: list[str] = []
    style = min((_style(timeline, longest, columns) for timeline in timelines), key=STYLES.index, default="")
    for timeline in timelines:
        if len(timelines) > 1:
            lines.append(f"{timeline.source}, {time_text(timeline.makespan, timeline.unit)}, {_bubbles(timeline)}")
        lines += _rows(timeline, longest, columns, digits, style, colour)
    lines += _axis(longest, columns, margin, timelines[0].unit if timelines else "s")
    if len(timelines) == 1:
        lines.append(_bubbles(timelines[0]))
    return "\n".join([*lines, _legend(timelines, colour)])


def _rows(timeline: Timeline, longest: float, columns: int, digits: int, style: str, colour: bool) -> list[str]:
    step = math.ceil(timeline.num_ranks / MOST_ROWS) if timeline.num_ranks else 1
    busy = timeline.busy() / (timeline.makespan or 1.0)
    by_rank = spans_by_rank(timeline)
    lines = []
    for rank in range(0, timeline.num_ranks, step):
        cells = _named if style else _lettered
        text, codes = cells(timeline, by_rank[rank], longest, columns, style)
        row = _paint(text, codes) if colour else "".join(text)
        lines.append(f"rank {rank:<{digits}} {row}|{100 * busy[rank]:3.0f} %")
    if step > 1:
        lines.append(f"(every {step}th of {timeline.num_ranks} ranks)")
    return lines


def _lettered(
    timeline: Timeline, spans: NDArray[np.int64], longest: float, columns: int, style: str
) -> tuple[list[str], list[int]]:
    """A row of letters: in each column that of the op that took most of it, or a blank (code -1)."""
    codes = ops_by_column(timeline, spans, longest, columns)
    return [" " if code < 0 else Op(code).letter for code in codes], codes


def _named(
    timeline: Timeline, spans: NDArray[np.int64], longest: float, columns: int, style: str
) -> tuple[list[str], list[int]]:
    """A row of cells, one per action and as wide as it took: ``|2F0--``, else ``|F0``, else ``|F``."""
    text, codes = [" "] * columns, [-1] * columns
    left = np.rint(timeline.start[spans] * (columns / longest)).astype(int).tolist()
    right = np.rint(timeline.end[spans] * (columns / longest)).astype(int).tolist()
    for i, first, last in zip(spans.tolist(), left, right, strict=True):
        op = Op(int(timeline.op[i]))
        full = str(Action.of_row(timeline.stage[i], op, timeline.microbatch[i]))
        short = full.lstrip("0123456789")
        name = full if style == "full" and len(full) < last - first else short
        if len(name) < last - first:
            cell = "|" + name.ljust(last - first - 1, FILL.get(op, "."))
        else:
            cell = ("|" * (last - first > 1) + op.letter * (last - first))[: last - first]
        text[first:last] = cell
        codes[first:last] = [op] * (last - first)
    return text, codes


def _style(timeline: Timeline, longest: float, columns: int) -> str:
    """How actions are named: ``"full"`` (2F0) where nearly all have room for that, ``"short"`` (F0) where most have."""
    if not timeline.num_spans or not longest:
        return ""
    small, middle = np.quantile((timeline.end - timeline.start) * (columns / longest), (0.25, 0.5))
    microbatch = len(str(int(timeline.microbatch.max())))
    stage = len(str(int(timeline.stage.max())))
    if small >= 2 + microbatch + stage:
        return "full"
    return "short" if middle >= 2 + microbatch else ""


def _paint(text: list[str], codes: list[int]) -> str:
    """The row in colour; the fill gives way to the colour."""
    painted = ""
    before = -1
    for character, code in zip(text, codes, strict=True):
        if code != before:
            painted += "\x1b[0m" if code < 0 else f"\x1b[0;{PAINT.get(Op(code), '7')}m"
            before = code
        painted += " " if code >= 0 and character == FILL.get(Op(code)) else character
    return painted + ("\x1b[0m" if before >= 0 else "")


def _axis(longest: float, columns: int, margin: int, unit: str) -> list[str]:
    """A line of ticks at round times, and a line of their numbers, the last with the unit."""
    if longest <= 0:
        return []
    scale, name = scale_of(longest, unit)
    marks, numbers = [" "] * (columns + 1), [" "] * (margin + columns + 8)
    for tick in ticks(longest / scale, max(2, columns // 12)):
        at = round(tick * scale / longest * columns)
        marks[at] = "'"
        label = f"{tick:.10g}"
        numbers[margin + at : margin + at + len(label)] = label
    return [" " * margin + "".join(marks).rstrip(), f"{''.join(numbers).rstrip()} {name}"]


def _bubbles(timeline: Timeline) -> str:
    bubble = timeline.bubbles()
    return f"bubble {bubble['makespan']:.1%} of the makespan, {bubble['span']:.1%} of the span".replace("%", " %")


def _legend(timelines: Sequence[Timeline], colour: bool) -> str:
    used = [op for op in MEANING if any((timeline.op == op).any() for timeline in timelines)]
    letters = {op: f"\x1b[{PAINT.get(op, '7')}m {op.letter} \x1b[0m" if colour else op.letter for op in used}
    return ", ".join([*(f"{letter} {MEANING[op]}" for op, letter in letters.items()), "right: busy"])
