"""``report.html``: one self-contained page per run or sweep. It asks the network for nothing and runs no code but ours.

    run's folder --> Run --> facts, tables (autoescaped HTML)      \\
                             timelines (packed arrays, as JSON)     |--> base.html --> report.html
                             page.css, lanes.js (allowed by hash)  /

Whatever a config or an error says is text: templates escape it, JSON inside the page has no ``<``, and the page's
policy forbids every script but the one whose hash it names.
"""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipezoo.report.cause_bars import cause_bars
from pipezoo.report.chart import line_chart
from pipezoo.report.choices import plan_table, what_if
from pipezoo.report.device_choices import device_table
from pipezoo.report.orders import orders_of
from pipezoo.report.template import LANES, STUDIO, TABLE, render
from pipezoo.results.result import Bound, Bubbles, Prediction, Result, Spread
from pipezoo.results.run import Run, flat, read_run
from pipezoo.results.run_dir import PICTURE, REPORT, write_text
from pipezoo.results.sanitize import printable
from pipezoo.results.sweep_table import inner, number
from pipezoo.results.units import bytes_text, time_text
from pipezoo.simulator.timeline import Timeline
from pipezoo.validators import regular_file

LARGEST_PICTURE = 2**16  # bytes
MOST_SPANS = 1_000_000  # of one timeline on a page; of more, evenly chosen ranks are shown


def write_report(folder: str | Path) -> Path:
    """Write ``report.html`` into a run's folder, from its files, and return its path.

    Raises:
        ConfigError: there is no run in the folder.
        OutputError: the folder cannot be written.
    """
    path = Path(folder) / REPORT
    write_text(path, run_page(read_run(folder)))
    return path


def run_page(run: Run) -> str:
    """The page of one run."""
    losses, editable = {"loss": list(enumerate(run.losses))}, orders_of(run)
    return render(
        "run.html",
        title=run.title,
        data=packed([(timeline, run) for timeline in numbered(run.timelines)]),
        orders=editable,
        scripts=LANES + (STUDIO if editable else ()) + (TABLE if run.result.get("task") == "plan" else ()),
        verdict=_verdict(run.result),
        error=_error(run.result),
        problems=run.problems,
        facts=_facts(run),
        sizes=_sizes(run),
        derived=_derived(run.result),
        memory_unit=run.memory_unit,
        losses=line_chart(losses, "loss by step", from_zero=False) if run.losses else None,
        memory=_memory(run),
        measured_memory=bool(run.memory("measured")),
        causes=cause_bars(run),
        picture=_picture(run),
        plans=plan_table(run) or device_table(run),
        what_if=what_if(run),
        commands=_commands(run),
        config_text=run.config_text,
        everything=list(flat(run.result)),
    )


def numbered(timelines: Sequence[Timeline]) -> list[Timeline]:
    """The same, with ``measured 1``, ``measured 2`` ... as source where several steps were recorded."""
    sources = [timeline.source for timeline in timelines]
    return [
        replace(line, source=f"{line.source} {sources[: i + 1].count(line.source)}")
        if sources.count(line.source) > 1
        else line
        for i, line in enumerate(timelines)
    ]


def packed(timelines: Sequence[tuple[Timeline, Run]]) -> dict[str, Any] | None:
    """Timelines and their runs for ``lanes.js``: arrays in order of rank and time, as base64 of the smallest unsigned
    ints. None where there is no timeline."""
    if not timelines:
        return None
    known = all(any(_kept(run)[0]) for _, run in timelines)
    return {
        "unit": timelines[0][1].unit,
        "held": timelines[0][1].memory_unit if known else "stage inputs",
        "timelines": [_packed_timeline(line, *(_kept(run) if known else ([], []))) for line, run in timelines],
    }


def _packed_timeline(timeline: Timeline, activation_bytes: list[float], frees: list[float]) -> dict[str, Any]:
    bubble, makespan = timeline.bubbles(), timeline.makespan
    first = float(timeline.start.min(initial=np.inf)) if timeline.num_spans else 0.0
    every = math.ceil(timeline.num_spans / MOST_SPANS) or 1
    ranks = np.arange(0, timeline.num_ranks, every)
    order = np.lexsort((timeline.start, timeline.rank))
    order = order[timeline.rank[order] % every == 0]
    tick = (makespan or 1.0) / (2**32 - 1)
    start = np.rint((timeline.start[order] - first) / tick)
    end = np.rint((timeline.end[order] - first) / tick)
    return {
        "name": timeline.source + (f", every {every}th rank" if every > 1 else ""),
        "activation_bytes": activation_bytes,
        "frees": frees,
        "makespan": makespan,
        "bubble": [f"{100 * bubble[key]:.1f}" for key in ("makespan", "span")],
        "tick": tick,
        "ranks": ranks.tolist(),
        "offsets": np.searchsorted(timeline.rank[order], [*ranks.tolist(), timeline.num_ranks]).tolist(),
        "ops": np.unique(timeline.op).tolist(),
        "start": _base64(start),
        "length": _base64(end - start),
        "stage": _base64(np.maximum(timeline.stage[order], 0)),
        "op": _base64(timeline.op[order]),
        "microbatch": _base64(timeline.microbatch[order].astype(np.int64) + 1),
    }


def _base64(values: NDArray[Any]) -> dict[str, str]:
    most = int(values.max(initial=0))
    kind = next(kind for kind, bits in (("u1", 8), ("u2", 16), ("u4", 32)) if most < 2**bits)
    return {"type": kind, "data": base64.b64encode(values.astype(f"<{kind}").tobytes()).decode("ascii")}


def _kept(run: Run) -> tuple[list[float], list[float]]:
    """What the forward of each stage keeps for the backward, and what of it the I half gives back."""
    activation_bytes, frees = (
        [number(inner(stage, key)) or 0.0 for stage in run.costs] for key in ("activation_bytes", "freed_by_input_grad")
    )
    return activation_bytes, frees


def _verdict(result: dict[str, Any]) -> dict[str, str]:
    status, verified = str(result.get("status", "unknown")), result.get("verified")
    if status != "ok":
        return {"kind": "bad" if status != "running" else "", "word": status, "text": ""}
    if (task := result.get("task")) in ("simulate", "plan"):
        return {"kind": "", "word": {"simulate": "simulated", "plan": "planned"}[task], "text": "nothing was trained"}
    if verified is None:
        return {"kind": "", "word": "not verified", "text": "against one device"}
    difference = number(result.get("max_relative_difference"))
    text = "" if difference is None else f"max relative difference {difference:.3g}"
    known = {"exact": "bit for bit what one device computes", "close": text, "failed": text}
    return {
        "kind": "bad" if verified == "failed" else "good",
        "word": f"verified {verified}" if verified != "failed" else "verification failed",
        "text": known.get(str(verified), text),
    }


def _error(result: dict[str, Any]) -> str:
    error = result.get("error") or result.get("first_difference")
    return "" if not error else error if isinstance(error, str) else "\n".join(f"{k}: {v}" for k, v in flat(error))


Fact = tuple[str, str, str]  # name, value, note


def _facts(run: Run) -> list[dict[str, str]]:
    result = Result.from_dict(run.result)
    facts = [*_times(result, run.unit), *_bubbles(result), *_prediction(result, run.unit), *_nearest(result)]
    return [{"name": name, "value": value, "note": note} for name, value, note in facts]


def _sizes(run: Run) -> str:
    """What ran, in one line."""
    keys = ("num_stages", "num_ranks", "num_microbatches", "batch_size", "dtype", "device", "launch", "executor")
    known = [(key.removeprefix("num_").replace("_", " "), run.result.get(key)) for key in keys]
    return ", ".join(f"{name} {value}" for name, value in known if isinstance(value, (str, int)))


def _times(result: Result, unit: str) -> Iterator[Fact]:
    step = result.step_seconds or Spread()
    if step.median is not None:
        known = [(name, value) for name, value in (("min", step.min), ("max", step.max)) if value is not None]
        extremes = [f"{name} {time_text(value, unit)}" for name, value in known]
        yield "step, median" if extremes else "step", time_text(step.median, unit), ", ".join(extremes)
    if result.samples_per_second is not None:
        yield "samples per second", f"{result.samples_per_second:.4g}", ""


def _bubbles(result: Result) -> Iterator[Fact]:
    both = result.bubble or Bubbles()
    for source, bubble in (("measured", both.measured), ("predicted", both.predicted)):
        if bubble is not None and bubble.makespan is not None:
            note = "of the makespan" + ("" if bubble.span is None else f"; {100 * bubble.span:.1f} % of the span")
            yield f"bubble, {source}", f"{100 * bubble.makespan:.1f} %", note


def _prediction(result: Result, unit: str) -> Iterator[Fact]:
    prediction = result.prediction or Prediction()
    if prediction.step_error is not None:
        yield "prediction error", f"{100 * prediction.step_error:+.1f} %", "predicted over measured step"
    bound = prediction.lower_bound or Bound()
    if bound.bubble is not None:
        gap = "" if prediction.gap is None else f"; gap {100 * prediction.gap:.1f} points"
        yield "bubble, lower bound", f"{100 * bound.bubble:.1f} %", f"no order of this work has less{gap}"
    path = prediction.critical_path
    if (actions := number(inner(path, "num_actions"))) is not None:
        messages = number(inner(path, "num_messages")) or 0
        seconds = inner(path, "compute_seconds_by_op")
        parts = [(op, number(value)) for op, value in seconds.items()] if isinstance(seconds, dict) else []
        note = ", ".join(f"{op} {time_text(value, unit)}" for op, value in parts if value is not None)
        yield "critical path", f"{actions:.0f} actions, {messages:.0f} messages", note


def _nearest(result: Result) -> Iterator[Fact]:
    if isinstance(name := inner(result.nearest, "schedule"), str):
        crossed = number(inner(result.nearest, "distance"))
        note = "" if crossed is None else f"{100 * crossed:.2g} % of the pairs of actions run the other way round"
        yield "nearest fixed schedule", name, "the same order" if crossed == 0 else note


def _derived(result: dict[str, Any]) -> str:
    """Everything that nobody typed, in one line."""
    derived = result.get("derived")
    if isinstance(derived, dict):
        return ", ".join(f"{key}={value}" for key, value in flat(derived))
    return ", ".join(map(str, derived)) if isinstance(derived, list) else ""


def _memory(run: Run) -> list[tuple[str, str]]:
    predicted, measured = run.memory("predicted"), run.memory("measured")
    num_ranks = max(len(predicted), len(measured))
    columns = [values + [None] * (num_ranks - len(values)) for values in (predicted, measured)]
    spelled = bytes_text if run.memory_unit == "bytes" else "{:.6g}".format
    texts = [["" if value is None else spelled(value) for value in column] for column in columns]
    return list(zip(*texts, strict=True))


def _picture(run: Run) -> dict[str, str] | None:
    """Where a run has no spans to draw: why, and its picture in letters."""
    why = run.result.get("timeline")
    if run.timelines or not isinstance(why, str):
        return None
    try:
        with regular_file(run.folder / PICTURE).open("rb") as file:
            return {"why": why, "text": file.read(LARGEST_PICTURE).decode("utf-8", "replace")}
    except OSError:
        return {"why": why, "text": ""}


def _commands(run: Run) -> str:
    """What to type to see the run again: its repetition from the folder, and the command as it was given."""
    return f"python -m pipezoo.rerun {shlex.quote(printable(run.folder))}\n{printable(run.command)}"
