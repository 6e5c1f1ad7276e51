"""The page of a sweep: its jobs as a table that sorts, their timelines side by side, and what each swept key does.

step time |  o                 one chart per key and figure; lines join the jobs that differ in this key alone
          |    o--o
          +---2--4--8  stages
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from pipezoo.errors import ConfigError
from pipezoo.report.chart import KINDS, line_chart
from pipezoo.report.colors import COLOURS
from pipezoo.report.scales import ops_by_column, spans_by_rank
from pipezoo.report.template import TABLE, legend, render
from pipezoo.results.result import Result
from pipezoo.results.run_dir import REPORT, write_text
from pipezoo.results.sweep_table import DOES_NOT_APPLY, Cell, cells, collect, errors, succeeded, swept_keys
from pipezoo.results.timeline_file import load_timelines
from pipezoo.results.units import count, time_text
from pipezoo.schedule.action import Op
from pipezoo.simulator.timeline import Timeline

Row = dict[str, Any]

FIGURES = (
    ("step_seconds", "step, {unit}", 1),
    ("bubble_measured", "bubble measured, %", 100),
    ("bubble_predicted", "bubble predicted, %", 100),
)
MOST_LANES = 32  # of a small picture; of more ranks, evenly chosen ones are shown
COLUMNS = 270  # of a small picture, in pixels
MOST_MEDIANS = 3  # of all timelines, that the axis of the small pictures shows
FAR_APART = 20  # times the least value, from which on a chart is logarithmic


def write_sweep_report(folder: str | Path) -> Path:
    """Write ``report.html`` into a sweep's folder, from its jobs' files, and return its path.

    Raises:
        ConfigError: there is no job in the folder.
        OutputError: the folder cannot be written.
    """
    path = Path(folder) / REPORT
    write_text(path, sweep_page(folder))
    return path


def sweep_page(folder: str | Path) -> str:
    """The page of one sweep."""
    folder = Path(folder)
    rows = collect(folder)
    pictures = [_picture(folder / row["folder"]) for row in rows]
    known = [picture for picture in pictures if picture]
    used = {int(code) for timeline in known for code in np.unique(timeline.op)}
    readable = [
        [*line, spread] for line, spread in zip(cells(rows), (_spread(folder, row) for row in rows), strict=True)
    ]
    best = _best(rows)
    return render(
        "sweep.html",
        title=f"Sweep of {len(rows)} jobs over {', '.join(swept_keys(rows)) or 'nothing'}",
        scripts=TABLE,
        verdict=_verdict(rows),
        columns=readable[0],
        table=[
            {"cells": line, "kind": _kind(row, best), "link": _link(folder, row)}
            for row, line in zip(rows, readable, strict=True)
        ],
        best_note=f"Marked: job {best['job']}, the one with {best['why']}." if best else "",
        errors=errors(rows),
        charts=[charts for key in swept_keys(rows) if (charts := _charts(rows, key))["charts"]],
        thumbnails=_thumbnails(folder, rows, pictures),
        axis_note=_axis_note(known),
        legend=legend(used),
    )


def _best(rows: Sequence[Row]) -> Row | None:
    """The job that trains most samples a second, or else has the shortest step; None where nothing can be chosen."""
    good = [row for row in rows if succeeded(row)]
    if len(good) < 2 or len({row["unit"] for row in good}) > 1:
        return None
    if all(row["samples_per_second"] is not None for row in good):
        return max(good, key=lambda row: row["samples_per_second"]) | {"why": "the most samples a second"}
    if all(row["step_seconds"] is not None for row in good):
        return min(good, key=lambda row: row["step_seconds"]) | {"why": "the shortest step"}
    return None


def _kind(row: Row, best: Row | None) -> str:
    if row["status"] == DOES_NOT_APPLY:
        return ""
    if not succeeded(row):
        return "bad"

    return "best" if best is not None and row["folder"] == best["folder"] else ""


def _spread(folder: Path, row: Row) -> Cell:
    """The shortest and the longest step of a job; sorted by how far they are apart."""
    try:
        steps = Result.of(folder / row["folder"]).step_seconds
    except ConfigError:
        steps = None
    if steps is None or steps.min is None or steps.max is None or not steps.median:
        return Cell("min to max", "", None, True)
    text = f"{time_text(steps.min, row['unit'])} to {time_text(steps.max, row['unit'])}"
    return Cell("min to max", text, (steps.max - steps.min) / steps.median, True)


def _verdict(rows: Sequence[Row]) -> dict[str, str]:
    good = sum(map(succeeded, rows))
    fitting = sum(row["status"] != DOES_NOT_APPLY for row in rows)
    verified = sum(row["verified"] in ("exact", "close") and succeeded(row) for row in rows)
    texts = [f"{verified} verified" if verified or good < fitting else ""]
    texts += [f"{len(rows) - fitting} do not apply" if fitting < len(rows) else ""]
    text = ", ".join(filter(None, texts))
    if good == fitting and good:
        return {"kind": "good", "word": f"all {good} jobs ok", "text": text}
    return {"kind": "bad", "word": f"{fitting - good} of {fitting} jobs failed", "text": text}


def _link(folder: Path, row: Row) -> str:
    """Where a job's page is, or else its folder; quoted, so that no name of a folder is taken for a scheme."""
    page = f"/{REPORT}" if (folder / row["folder"] / REPORT).exists() else "/"
    return f"./{quote(row['folder'], errors='replace')}{page}"


def _picture(job: Path) -> Timeline | None:
    """The timeline to show of a job, measured where there is one; None where there is none."""
    try:
        timelines = load_timelines(job)
    except ConfigError:
        return None
    ordered = sorted(timelines, key=lambda timeline: timeline.source != "measured")
    return ordered[0].shifted() if ordered and ordered[0].num_spans else None


def _axis_note(pictures: Sequence[Timeline]) -> str:
    if not pictures:
        return ""
    axis, unit = _axis(pictures), pictures[0].unit
    cut = sum(timeline.makespan > axis * 1.000001 for timeline in pictures)
    said = f"All on one time axis, 0 to {time_text(axis, unit)}."
    return said + (f" {count(cut, 'timeline')} of them {'goes' if cut == 1 else 'go'} on beyond it." if cut else "")


def _axis(pictures: Sequence[Timeline]) -> float:
    """The time that every small picture shows: all of the longest, unless that would flatten the others."""
    lengths = [timeline.makespan for timeline in pictures]
    return min(max(lengths, default=0.0), MOST_MEDIANS * statistics.median(lengths)) if lengths else 0.0


def _thumbnails(folder: Path, rows: Sequence[Row], pictures: Sequence[Timeline | None]) -> list[dict[str, Any]]:
    longest = _axis([timeline for timeline in pictures if timeline]) or 1.0
    thumbnails = []
    for row, timeline in zip(rows, pictures, strict=True):
        if timeline:
            name = f"{row['job']}: " + ", ".join(f"{key.rpartition('.')[2]}={row[key]}" for key in swept_keys([row]))
            note = f"{timeline.source}, {time_text(timeline.makespan, timeline.unit)}"
            svg = _small(timeline, longest)
            thumbnails.append({"name": name, "note": note, "svg": svg, "link": _link(folder, row)})
    return thumbnails


def _small(timeline: Timeline, longest: float) -> Markup:
    """A timeline in little: runs of the op that took most of each pixel, coloured by the style sheet."""
    every = math.ceil(timeline.num_ranks / MOST_LANES)
    by_rank = spans_by_rank(timeline)[::every]
    tall = 12 if len(by_rank) <= 4 else 8 if len(by_rank) <= 8 else 5
    paths: dict[str, list[str]] = {}
    for lane, spans in enumerate(by_rank):
        at = 0
        for code, run in groupby(ops_by_column(timeline, spans, longest, COLUMNS)):
            wide = len(list(run))
            if code >= 0:
                kind = Op(code).name if Op(code) in COLOURS else "other"
                paths.setdefault(kind, []).append(f"M{at} {lane * tall}h{wide}v{tall - 1}h-{wide}z")
            at += wide
    drawn = (Markup('<path class="{}" d="{}"/>').format(kind, "".join(path)) for kind, path in paths.items())
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="timeline">').format(COLUMNS, len(by_rank) * tall)
    return head + Markup("").join(drawn) + Markup("</svg>")


def _charts(rows: Sequence[Row], key: str) -> dict[str, Any]:
    """What ``key`` does to each figure; jobs that are equal in every other key share a line."""
    others = [other for other in swept_keys(list(rows)) if other != key]
    rows = [row for row in rows if row[key] is not None and any(row[figure] is not None for figure, *_ in FIGURES)]
    values = _in_order([str(row[key]) for row in rows])
    names = [", ".join(f"{other.rpartition('.')[2]}={row[other]}" for other in others) or "all jobs" for row in rows]
    unit = "seconds" if all(row["unit"] != "unit" for row in rows) else "units"
    kinds = list(dict.fromkeys(names))
    charts = []
    for figure, name, scale in FIGURES:
        lines: dict[str, list[tuple[float, float]]] = {line: [] for line in kinds}
        for row, line in zip(rows, names, strict=True):
            if row[figure] is not None:
                lines[line].append((values.index(str(row[key])), scale * row[figure]))
        if any(lines.values()):
            ordered, name = {line: sorted(points) for line, points in lines.items()}, name.format(unit=unit)
            heights = [y for points in lines.values() for _, y in points]
            log = min(heights) > 0 and max(heights) >= FAR_APART * min(heights)
            name += ", logarithmic" if log else ""
            charts.append({"name": name, "svg": line_chart(ordered, f"{name} by {key}", values, dots=True, log=log)})
    shown = [{"name": line, "kind": f"k{i}"} for i, line in enumerate(kinds)] if 1 < len(kinds) <= KINDS else []
    return {"name": key, "charts": charts, "legend": shown}


def _in_order(values: Sequence[str]) -> list[str]:
    """Each once: numbers by size, words in the order of the jobs."""
    try:
        return sorted(set(values), key=float)
    except ValueError:
        return list(dict.fromkeys(values))
