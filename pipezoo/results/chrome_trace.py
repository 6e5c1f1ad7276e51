"""Timelines as a trace file that https://ui.perfetto.dev opens.

    predicted   rank 0  [0F0][0F1]          one process per timeline, one thread per rank
                rank 1       [1F0]...       arrows follow a microbatch from rank to rank
    measured    rank 0  [0F0 ][0F1]
                rank 1        [1F0 ]...

Between actions stand the waits of a rank; messages and a counter of memory stand beside (``trace_waits.py``).
Times are microseconds in the file, as the format wants, to the nanosecond. What is to be read back is in
``timeline.npz``; :func:`read_trace` is there for the folders of pipezoo 0.1.0, which had the trace alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from pipezoo.errors import ConfigError
from pipezoo.results.run_dir import whole_file
from pipezoo.results.trace_waits import WAIT, Kept, held, waits_and_messages
from pipezoo.schedule.action import Op
from pipezoo.simulator.timeline import Timeline
from pipezoo.validators import regular_file

LARGEST_FILE = 2**30  # bytes; a million spans take about 120 MB
BACKWARD = 2**40  # apart from every stage

# What chrome://tracing paints with; Perfetto colours by name without its digits, which here is the op.
COLOURS = {Op.F: "thread_state_runnable", Op.B: "bad", Op.I: "terrible", Op.W: "yellow"}


def write_trace(
    path: str | Path,
    timelines: Sequence[Timeline],
    kept: Kept | None = None,
    clocks: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write the timelines to one file, whole.

    Args:
        kept: what stages keep for their backwards, for a counter of memory; None: there is none.
        clocks: what was added to the times of other machines, by rank.

    Raises:
        OutputError: the file cannot be written.
    """
    about: dict[str, Any] = {"producer": "pipezoo", "unit": timelines[0].unit if timelines else "s"}
    about |= {"clocks": dict(clocks)} if clocks else {}
    with whole_file(path) as file:
        head = json.dumps({"displayTimeUnit": "ms", "otherData": about})
        file.write((head[:-1] + ', "traceEvents": [\n').encode())
        separator = b""
        for process, timeline in enumerate(timelines):
            for event in chain(_events(process, timeline), _beside(process, timeline, kept)):
                file.write(separator + event.encode())
                separator = b",\n"
        file.write(b"\n]}\n")


def read_trace(path: str | Path) -> list[Timeline]:
    """The timelines of a trace that pipezoo wrote, in its order.

    Raises:
        ConfigError: the file is missing, too large, or no such trace.
    """
    trace = _load(path)
    try:
        return _timelines(trace["traceEvents"], str(trace["otherData"]["unit"]))
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
    start = np.rint(timeline.start * 1e9)  # rounded at both ends, so that neighbours do not come to overlap
    length = np.rint(timeline.end * 1e9) - start
    columns = (timeline.rank, timeline.stage, timeline.op, timeline.microbatch, start / 1e3, length / 1e3)
    rows = zip(*(column.tolist() for column in columns), _flows(process, timeline), strict=True)
    for rank, stage, code, microbatch, begin, took, flow in rows:
        op = names[code]
        name = f"{stage}{op}" if microbatch < 0 else f"{stage}{op}{microbatch}"
        args = f'{{"stage":{stage}}}' if microbatch < 0 else f'{{"stage":{stage},"microbatch":{microbatch}}}'
        yield (
            f'{{"ph":"X","name":"{name}","cat":"{op}","pid":{process},"tid":{rank},"ts":{begin!r},"dur":{took!r},'
            f'"args":{args}{endings[code]}{flow}}}'
        )


def _beside(process: int, timeline: Timeline, kept: Kept | None) -> Iterator[str]:
    yield from waits_and_messages(process, timeline, _sources(timeline))
    if kept is not None:
        yield from held(process, timeline, kept)


def _sources(timeline: Timeline) -> dict[int, int]:
    """By span, the one on another rank whose message it needs."""
    spans = _spans_that_hand_on(timeline)
    found = {}
    for (step, way, microbatch), i in spans.items():
        before = spans.get((step, way - 1, microbatch))
        if before is not None and timeline.rank[before] != timeline.rank[i]:
            found[i] = before
    return found


def _named(what: str, process: int, thread: int, args: dict[str, object]) -> str:
    return json.dumps({"ph": "M", "name": what, "pid": process, "tid": thread, "args": args})


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


def _load(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    try:
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise ConfigError(f"file={path}: {size} bytes; at most {LARGEST_FILE} are read")
        trace = json.loads(regular_file(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"file={path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"file={path}: not JSON") from None
    if not isinstance(trace, dict):
        raise ConfigError(f"file={path}: not a timeline of pipezoo")
    return trace


Row = tuple[int, int, int, int, float, float]  # rank, stage, op, microbatch, start, end


def _timelines(events: list[dict[str, Any]], unit: str) -> list[Timeline]:
    sources: dict[int, str] = {}
    num_ranks: dict[int, int] = {}
    rows: dict[int, list[Row]] = {}
    codes = {op.name: op.value for op in Op}
    for event in events:
        process, thread, args = event["pid"], event["tid"], event.get("args", {})
        if event["name"] == "process_name":
            sources[process] = str(args["name"])
        elif event["name"] == "thread_name":
            num_ranks[process] = max(num_ranks.get(process, 0), int(thread) + 1)
        elif event["ph"] == "X" and event["cat"] != WAIT:
            start, end = event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6
            row = (thread, args["stage"], codes[event["cat"]], args.get("microbatch", -1), start, end)
            rows.setdefault(process, []).append(row)
    return [_timeline(rows.get(key, []), num_ranks.get(key, 0), source, unit) for key, source in sources.items()]


def _timeline(rows: list[Row], num_ranks: int, source: str, unit: str) -> Timeline:
    kinds = (np.int32, np.int32, np.int8, np.int32, np.float64, np.float64)
    columns = zip(*rows, strict=True) if rows else ((),) * len(kinds)
    arrays = (np.array(column, dtype=kind) for column, kind in zip(columns, kinds, strict=True))
    timeline = Timeline(*arrays, num_ranks, source, unit)  # type: ignore[call-arg, arg-type]
    timeline.check()
    return timeline
