"""What a notebook or a terminal shows for an object of the library; looked up by name from ``schedule/display.py``."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipezoo.costs.unit import unit
from pipezoo.errors import ConfigError
from pipezoo.report import plan_table
from pipezoo.report.ascii import draw
from pipezoo.report.svg import lay_out, to_png, to_svg
from pipezoo.results.chrome_trace import write_trace
from pipezoo.results.run import Run
from pipezoo.results.run_dir import whole_file, write_text
from pipezoo.results.timeline_file import write_timelines
from pipezoo.schedule.action import COMPUTE
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.cost_entries import BYTES_AND_OPTIMIZER
from pipezoo.simulator.simulate import simulate
from pipezoo.simulator.timeline import Timeline

if TYPE_CHECKING:
    from pipezoo.planner.plans import Plans

WIDTH = 900  # of a picture in a notebook
SUFFIXES = (".svg", ".png", ".html", ".json", ".npz", ".txt")
MOST_ROWS = 15  # of a table in a notebook


def order_svg(schedule: Schedule) -> str:
    """The order of a schedule, drawn at equal costs of F, I and W."""
    cost = unit(schedule.num_stages, max(1, schedule.num_stages // schedule.num_ranks))
    return to_svg(lay_out([simulate(schedule, cost)], WIDTH, title=schedule.name))


def timeline_svg(timeline: Timeline) -> str:
    return to_svg(lay_out([timeline], WIDTH))


def timeline_text(timeline: Timeline) -> str:
    return draw(timeline, shutil.get_terminal_size((100, 24)).columns)


def save_timeline(timeline: Timeline, path: Path) -> str:
    """Write a timeline as its file's name says; the path. Raises ConfigError, OutputError."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"path={path}: must end in one of {', '.join(SUFFIXES)}")
    if path.suffix == ".json":
        write_trace(path, [timeline])
    elif path.suffix == ".npz":
        write_timelines(path, [timeline])
    elif path.suffix == ".txt":
        write_text(path, f"{draw(timeline, 100)}\n")
    elif path.suffix == ".html":
        write_text(path, timelines_page([timeline], f"Timeline, {timeline.source}"))
    else:
        picture = lay_out([timeline])
        data = to_svg(picture).encode() if path.suffix == ".svg" else to_png(picture)
        with whole_file(path) as file:
            file.write(data)
    return str(path)


def timelines_page(timelines: Sequence[Timeline], title: str) -> str:
    """A self-contained page on which one can zoom into timelines."""
    from pipezoo.report.html import packed
    from pipezoo.report.template import render

    data = packed([(timeline, Run(Path("."), _memory(timeline))) for timeline in timelines])
    return render("compare.html", title=title, data=data, runs=[], problems=[], tables=[], losses=None)


def cost_html(cost: Cost) -> str:
    """A row a stage: seconds and bytes."""
    names = [op.name for op in COMPUTE]
    amounts = [key for key in BYTES_AND_OPTIMIZER if getattr(cost, key).any()]
    columns = [*(cost.seconds[:, op] for op in COMPUTE), *(getattr(cost, key) for key in amounts)]
    stages = ["every stage"] if cost.for_every_stage else list(map(str, range(cost.num_stages)))
    rows = [[stage, *(f"{column[i]:.6g}" for column in columns)] for i, stage in enumerate(stages)]
    p2p = f"p2p: {cost.p2p.latency:.6g} {cost.unit} and {cost.p2p.bandwidth:.4g} bytes a second"
    return table_html(["stage", *names, *amounts], rows) + f"<p>{escape(p2p)}</p>"


def run_html(run: Run) -> str:
    """One line about a run, and its last timelines on one axis."""
    shown = [line for source in ("predicted", "measured") if (line := run.timeline(source)) is not None]
    picture = to_svg(lay_out(shown, WIDTH)) if shown else ""
    return f"<p>{escape(repr(run))}</p>{picture}"


def plans_text(plans: Plans, top: int) -> str:
    return "\n".join(plan_table.lines(plans, top))


def plans_html(plans: Plans) -> str:
    """The best rows of a plan's table, and the order of the best."""
    rows = [plan_table.cells(plan) for plan in plans.ranked[:MOST_ROWS]]
    return table_html(plan_table.COLUMNS, rows) + timeline_svg(plans.best.timeline)


def sweep_html(rows: Sequence[dict[str, Any]]) -> str:
    """A row a run of a sweep."""
    from pipezoo.results.sweep_table import cells

    table = cells(list(rows))
    return table_html([cell.name for cell in table[0]], [[cell.text for cell in row] for row in table])


def table_html(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A plain table; every text in it is escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _memory(timeline: Timeline) -> dict[str, Any]:
    """What a page knows of memory: the costs that made the timeline, where something did."""
    cost = getattr(timeline, "cost", None)
    return {"time_unit": timeline.unit} | ({} if cost is None else {"cost": cost.to_dict()})
