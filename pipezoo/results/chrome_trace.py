"""Timelines as a trace file that https://ui.perfetto.dev opens, and that reads back to the same numbers.

    predicted   rank 0  [0F0][0F1]          one process per timeline, one thread per rank
                rank 1       [1F0]...       arrows follow a microbatch from rank to rank
    measured    rank 0  [0F0 ][0F1]
                rank 1        [1F0 ]...

Times are microseconds in the file, as the format wants. They are written with the same digits and the point moved by
six places, never multiplied, so that nothing is lost on the way there and back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np

from pipezoo.errors import ConfigError
from pipezoo.results.run_dir import whole_file
from pipezoo.schedule.action import Op
from pipezoo.simulator.timeline import Timeline

LARGEST_FILE = 2**30  # bytes; a million spans take about 120 MB
DIGITS = 400  # enough for the exact difference of any two times that are not absurd
MOST_RANKS = 2**20
BACKWARD = 2**40  # apart from every stage
_WRITTEN: dict[tuple[int, ...], tuple[list[Timeline], str]] = {}  # the last file: its own page need not parse it
_SPAN = re.compile(
    rb',\n\{"ph":"X","name":"\w+","cat":"(\w+)","pid":(\d+),"tid":(\d+),"ts":(-?[\d.]+),"dur":(-?[\d.]+),'
    rb'"args":\{"stage":(\d+)(?:,"microbatch":(\d+))?\}[^{}\n]*\}(?=,?\n)'
)  # as _events writes it

# What chrome://tracing paints with; Perfetto colours by name without its digits, which here is the op.
COLOURS = {Op.F: "thread_state_runnable", Op.B: "bad", Op.I: "terrible", Op.W: "yellow"}


def write_timeline(path: str | Path, timelines: Sequence[Timeline], unit: str = "s") -> None:
    """Write the timelines to one file, whole; ``unit`` is what their times count (``s``, or ``unit`` of a unit cost).

    Raises:
        ValueError: a time that is not finite.
        OutputError: the file cannot be written.
    """
    for timeline in timelines:
        if not (np.isfinite(timeline.start).all() and np.isfinite(timeline.end).all()):
            raise ValueError(f"timelines: the {timeline.source} one has a time that is not finite")
    head = {"displayTimeUnit": "ms", "otherData": {"producer": "pipezoo", "unit": unit}}
    with whole_file(path) as file, localcontext() as context:
        context.prec = DIGITS
        file.write((json.dumps(head)[:-1] + ', "traceEvents": [\n').encode())
        separator = b""
        for process, timeline in enumerate(timelines):
            for event in _events(process, timeline):
                file.write(separator + event.encode())
                separator = b",\n"
        file.write(b"\n]}\n")
    _WRITTEN.clear()
    _WRITTEN[_signature(path)] = list(timelines), unit


def read_timelines(path: str | Path) -> list[Timeline]:
    """The timelines of a file that :func:`write_timeline` wrote, in its order. Raises as :func:`read_trace`."""
    return read_trace(path)[0]


def read_trace(path: str | Path) -> tuple[list[Timeline], str]:
    """The timelines of a file, and what their times count: ``s``, or ``unit`` of a unit cost.

    Raises:
        ConfigError: the file is missing, too large, or not one that :func:`write_timeline` wrote.
    """
    if Path(path).exists() and (known := _WRITTEN.get(_signature(path))):
        return list(known[0]), known[1]
    text = _load(path)
    trace = _parsed(path, _SPAN.sub(b"", text))
    try:
        with localcontext() as context:
            context.prec = DIGITS
            return _timelines(trace["traceEvents"], _spans(text)), str(trace["otherData"]["unit"])
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ConfigError(f"file={path}: not a timeline of pipezoo ({type(error).__name__}: {error})") from None


def _events(process: int, timeline: Timeline) -> Iterator[str]:
    yield _named("process_name", process, 0, {"name": timeline.source})
    yield _named("process_sort_index", process, 0, {"sort_index": process})
    for rank in range(timeline.num_ranks):
        yield _named("thread_name", process, rank, {"name": f"rank {rank}"})
        yield _named("thread_sort_index", process, rank, {"sort_index": rank})
    endings = {op.value: f',"cname":"{COLOURS[op]}"' if op in COLOURS else "" for op in Op}
    names = {op.value: op.name for op in Op}
    spelled: dict[tuple[float, float], str] = {}  # ranks run at the same times again and again
    columns = (timeline.rank, timeline.stage, timeline.op, timeline.microbatch, timeline.start, timeline.end)
    rows = zip(*(column.tolist() for column in columns), _flows(process, timeline), strict=True)
    for rank, stage, code, microbatch, start, end, flow in rows:
        op = names[code]
        if (times := spelled.get((start, end))) is None:
            times = spelled[start, end] = _written(start, end)
        name = f"{stage}{op}" if microbatch < 0 else f"{stage}{op}{microbatch}"
        args = f'{{"stage":{stage}}}' if microbatch < 0 else f'{{"stage":{stage},"microbatch":{microbatch}}}'
        yield (
            f'{{"ph":"X","name":"{name}","cat":"{op}","pid":{process},"tid":{rank},{times},'
            f'"args":{args}{endings[code]}{flow}}}'
        )


def _named(what: str, process: int, thread: int, args: dict[str, object]) -> str:
    return json.dumps({"ph": "M", "name": what, "pid": process, "tid": thread, "args": args})


def _written(start: float, end: float) -> str:
    begin = Decimal(repr(start))
    return f'"ts":{_micro(begin)},"dur":{_micro(Decimal(repr(end)) - begin)}'


def _micro(seconds: Decimal) -> str:
    text = format(seconds.scaleb(6), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _flows(process: int, timeline: Timeline) -> list[str]:
    """The arrows, one chain of spans per microbatch and direction: 0F3 > 1F3 > 2F3, and 2B3 > 1B3 > 0B3.

    A span is joined to the one before it where the two ran on different ranks: between them was a message. Where
    several steps were recorded, the n-th 1F3 follows the n-th 0F3.
    """
    spans = _spans_that_hand_on(timeline)
    rank = timeline.rank.tolist()
    chain: dict[int, int] = {}
    arrows = [""] * timeline.num_spans
    enters: set[int] = set()
    leaves: set[int] = set()
    for (step, stage, microbatch), i in spans.items():
        before = spans.get((step, stage - 1, microbatch))
        if before is not None and rank[before] != rank[i]:
            chain[i] = chain.setdefault(before, before)
            enters.add(i)
            leaves.add(before)
    for i, first in chain.items():
        ends = (',"flow_in":true' if i in enters else "") + (',"flow_out":true' if i in leaves else "")
        arrows[i] = f',"bind_id":"{(process << 32) + first + 1:#x}"{ends}'
    return arrows


def _spans_that_hand_on(timeline: Timeline) -> dict[tuple[int, int, int], int]:
    """The spans whose result another stage waits for, by (step, place on the way, microbatch), in order of place.

    The way of a microbatch is stage 0, 1, ... forward and ..., -2, -1, 0 backward, so the place before is always one
    less; an offset keeps the two apart.
    """
    ways = np.where(timeline.op == Op.F, timeline.stage, -timeline.stage.astype(np.int64) - BACKWARD)
    hands_on = np.isin(timeline.op, (Op.F, Op.B, Op.I))
    order = np.lexsort((timeline.start, ways))
    spans: dict[tuple[int, int, int], int] = {}
    steps: dict[tuple[int, int], int] = {}
    for i in order[hands_on[order]].tolist():
        way, microbatch = int(ways[i]), int(timeline.microbatch[i])
        step = steps[way, microbatch] = steps.get((way, microbatch), -1) + 1
        spans[step, way, microbatch] = i
    return spans


def _signature(path: str | Path) -> tuple[int, ...]:
    """What no other file has, and not this one either once somebody has written to it."""
    found = Path(path).stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _load(path: str | Path) -> bytes:
    path = Path(path)
    try:
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise ConfigError(f"file={path}: {size} bytes; at most {LARGEST_FILE} are read")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"file={path}: {error.strerror or error}") from None


def _parsed(path: str | Path, text: bytes) -> dict[str, Any]:
    try:
        trace = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise ConfigError(f"file={path}: not JSON") from None
    if not isinstance(trace, dict):
        raise ConfigError(f"file={path}: not a timeline of pipezoo")
    return trace


Row = tuple[int, int, int, int, float, float]  # rank, stage, op, microbatch, start, end


def _spans(text: bytes) -> dict[int, list[Row]]:
    """By process, the spans that are spelled as we spell them: many times quicker than as JSON."""
    rows: dict[int, list[Row]] = {}
    times: dict[tuple[bytes, bytes], tuple[float, float]] = {}
    codes = {op.name.encode(): op.value for op in Op}
    for op, process, rank, begin, duration, stage, microbatch in _SPAN.findall(text):
        key = (begin, duration)
        if key not in times:
            times[key] = _read(begin.decode(), duration.decode())
        row = (int(rank), int(stage), codes[op], int(microbatch or -1), *times[key])
        rows.setdefault(int(process), []).append(row)
    return rows


def _read(begin: Any, duration: Any) -> tuple[float, float]:
    """Start and end in the unit of the timeline, from microseconds."""
    start = Decimal(begin).scaleb(-6)
    return float(start), float(start + Decimal(duration).scaleb(-6))


def _timelines(events: list[dict[str, Any]], rows: dict[int, list[Row]]) -> list[Timeline]:
    """The timelines that ``events`` name; spans among them, of a file that others wrote, are added to ``rows``."""
    sources: dict[int, str] = {}
    num_ranks: dict[int, int] = {}
    codes = {op.name: op.value for op in Op}
    for event in events:
        process, thread, args = event["pid"], event["tid"], event["args"]
        if event["name"] == "process_name":
            sources[process] = str(args["name"])
        elif event["name"] == "thread_name":
            num_ranks[process] = max(num_ranks.get(process, 0), int(thread) + 1)
        elif event["ph"] == "X":
            times = _read(event["ts"], event["dur"])
            row = (thread, args["stage"], codes[event["cat"]], args.get("microbatch", -1), *times)
            rows.setdefault(process, []).append(row)
    return [_timeline(rows.get(key, []), num_ranks.get(key, 0), source) for key, source in sources.items()]


def _timeline(rows: list[Row], num_ranks: int, source: str) -> Timeline:
    kinds = (np.int32, np.int32, np.int8, np.int32, np.float64, np.float64)
    columns = zip(*rows, strict=True) if rows else ((),) * len(kinds)
    rank, stage, op, microbatch, start, end = (np.array(c, dtype=kind) for c, kind in zip(columns, kinds, strict=True))
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        raise ValueError("a time is not finite")
    if num_ranks > MOST_RANKS or rank.min(initial=0) < 0 or rank.max(initial=-1) >= num_ranks:
        raise ValueError("a rank is out of range")
    return Timeline(rank, stage, op, microbatch, start, end, num_ranks, source)
