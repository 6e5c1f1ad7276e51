"""Two runs or more side by side: the same time axis, and what differs in config, result and timeline.

A  stages=4 schedule=1f1b       config     schedule          1f1b       zbv
B  stages=4 schedule=zbv   -->  result     bubble.measured   0.31       0.12
                                timeline   F, mean           1.2 ms     1.2 ms
                                           rank 0, action 4  0B0        0I0
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipezoo.report.ascii import draw_together
from pipezoo.report.colors import MEANING
from pipezoo.report.scales import spans_by_rank
from pipezoo.results.run import Run, flat
from pipezoo.results.sanitize import printable
from pipezoo.results.units import time_text
from pipezoo.schedule.action import Action, Op
from pipezoo.simulator.timeline import Timeline

if TYPE_CHECKING:
    from rich.table import Table

Difference = tuple[str, list[str]]  # what, and its value in each run

LEFT_OUT = (
    "started",
    "finished",
    "pid",
    "command",
    "losses",
    "cost",
    "prediction",
)  # of a result: never the same, or told elsewhere
MOST_ACTIONS = 3  # of a rank's order that are shown where orders differ


def letters(runs: Sequence[Run]) -> list[str]:
    """A, B, C, ... as names of the runs."""
    return [string.ascii_uppercase[i] if i < 26 else f"run {i}" for i in range(len(runs))]


def differences(runs: Sequence[Run]) -> dict[str, list[Difference]]:
    """What differs, under ``config``, ``result`` and ``timeline``; an empty list where nothing does.

    Of timelines the lengths, the bubbles and the means are there too where they are equal.
    """
    return {
        "config": _unequal([run.config for run in runs]),
        "result": [*_losses(runs), *_unequal([_lasting(run.result) for run in runs])],
        "timeline": list(_timelines(runs)),
    }


def together(runs: Sequence[Run]) -> list[tuple[Timeline, Run]]:
    """All timelines of the runs, with ``source`` like ``A predicted``; those of one kind are neighbours."""
    found = [
        (replace(timeline, source=f"{letter} {timeline.source}"), run)
        for letter, run in _named(runs)
        for timeline in run.timelines
    ]
    return sorted(found, key=lambda pair: pair[0].source.endswith("measured"))


def to_text(runs: Sequence[Run], width: int, colour: bool = False) -> str:
    """The runs' names and their timelines on one axis."""
    names = [f"{letter}  {printable(run.title)}  ({printable(run.folder)})" for letter, run in _named(runs)]
    problems = [printable(problem) for run in runs for problem in run.problems]
    timelines = [timeline for timeline, _ in together(runs)]
    picture = [draw_together(timelines, width, colour)] if timelines else ["(no timelines)"]
    return "\n".join([*names, *problems, *picture])


def to_tables(runs: Sequence[Run]) -> list[Table]:
    """One table for the terminal for each of config, result and timeline."""
    from rich.table import Table
    from rich.text import Text

    tables = []
    for part, rows in differences(runs).items():
        table = Table(box=None, pad_edge=False)
        for heading in (part, *letters(runs)):
            table.add_column(heading, overflow="fold")
        for name, values in rows or [("no difference", [])]:
            table.add_row(*(Text(printable(text)) for text in (name, *values)))
        tables.append(table)
    return tables


def to_page(runs: Sequence[Run]) -> str:
    """The comparison as one self-contained page."""
    from pipezoo.report.chart import line_chart
    from pipezoo.report.html import packed
    from pipezoo.report.template import render

    lines = {f"{letter} {run.title}": list(enumerate(run.losses)) for letter, run in _named(runs)}
    return render(
        "compare.html",
        title=f"{' and '.join(letters(runs))} compared",
        data=packed(together(runs)),
        runs=[{"letter": letter, "title": run.title, "folder": str(run.folder)} for letter, run in _named(runs)],
        problems=[problem for run in runs for problem in run.problems],
        tables=[{"name": f"What differs in the {part}", "rows": rows} for part, rows in differences(runs).items()],
        losses=line_chart(lines, "loss by step", from_zero=False),
    )


def _named(runs: Sequence[Run]) -> Iterator[tuple[str, Run]]:
    return zip(letters(runs), runs, strict=True)


def _lasting(result: dict[str, Any]) -> dict[str, str]:
    return dict(flat({key: value for key, value in result.items() if key not in LEFT_OUT}))


def _unequal(sides: Sequence[dict[str, str]]) -> list[Difference]:
    """The keys whose values are not the same on all sides."""
    keys = dict.fromkeys(key for side in sides for key in side)
    rows = [(key, [_short(side.get(key, "")) for side in sides], {side.get(key) for side in sides}) for key in keys]
    return [(key, texts) for key, texts, values in rows if len(values) > 1]


def _short(text: str) -> str:
    """A number with the digits that a person compares; other text as it is."""
    try:
        return text if len(text) < 9 else f"{float(text):.6g}"
    except ValueError:
        return text


def _losses(runs: Sequence[Run]) -> list[Difference]:
    """The first step at which the losses are not the same to the last bit."""
    losses = [run.losses for run in runs]
    if len({len(values) for values in losses}) > 1:
        return [("losses, steps", [str(len(values)) for values in losses])]
    for step, values in enumerate(zip(*losses, strict=True)):
        if len({repr(value) for value in values}) > 1:
            return [(f"loss, first differs at step {step}", [repr(value) for value in values])]
    return []


def _timelines(runs: Sequence[Run]) -> Iterator[Difference]:
    for source in ("predicted", "measured"):
        sides = [run.timeline(source) for run in runs]
        if sum(side is not None for side in sides) < 2:
            continue
        lengths = [None if side is None else time_text(side.makespan, side.unit) for side in sides]
        bubbles = [None if side is None else f"{100 * side.bubble:.1f} %" for side in sides]
        yield _row(f"{source}: makespan", lengths)
        yield _row(f"{source}: bubble of the makespan", bubbles)
        for op in MEANING:
            means = [_mean(side, op) for side in sides]
            if any(means):
                yield _row(f"{source}: {op.letter}, mean", means)
        yield from _orders(source, sides)


def _row(name: str, values: Sequence[str | None]) -> Difference:
    return name, [value or "" for value in values]


def _mean(timeline: Timeline | None, op: Op) -> str | None:
    if timeline is None or not (chosen := timeline.op == op).any():
        return None
    return time_text(float(np.mean((timeline.end - timeline.start)[chosen])), timeline.unit)


def _orders(source: str, sides: Sequence[Timeline | None]) -> Iterator[Difference]:
    """The first rank whose actions are not in the same order, from the first action that is another one."""
    known = {index: _codes(side) for index, side in enumerate(sides) if side is not None}
    if len({len(orders) for orders in known.values()}) > 1:
        counts = {index: str(len(orders)) for index, orders in known.items()}
        yield _row(f"{source}: ranks", [counts.get(index) for index in range(len(sides))])
        return
    for rank, orders in enumerate(zip(*known.values(), strict=True)):
        first = min(_first_unequal(orders[0], other) for other in orders)
        if first < max(map(len, orders)):
            texts = {
                index: " ".join(str(Action.of_row(*row)) for row in order[first : first + MOST_ACTIONS].tolist())
                or "(ends)"
                for index, order in zip(known, orders, strict=True)
            }
            name = f"{source}: order, first differs on rank {rank} at action {first}"
            yield _row(name, [texts.get(index) for index in range(len(sides))])
            return


def _first_unequal(left: NDArray[np.int64], right: NDArray[np.int64]) -> int:
    both = min(len(left), len(right))
    unequal = np.flatnonzero((left[:both] != right[:both]).any(axis=1))
    return int(unequal[0]) if len(unequal) else both


def _codes(timeline: Timeline) -> list[NDArray[np.int64]]:
    """For each rank ``[num_actions, 3]``: stage, op and microbatch of its actions in order of time."""
    table = np.column_stack([timeline.stage, timeline.op, timeline.microbatch])
    return [table[spans] for spans in spans_by_rank(timeline)]
