"""What a trace tells beside its actions: why a rank waits, messages under way, and what it holds for the backward.

rank 0   |0F0|--waits for 1B0--|message|0B0|      slices in the gaps of a rank; each has its cause as argument
message  1B0 > 0B0  ~~~~~~~~~~~~~~~~~~~~          from the end of the sender to the begin of the receiver
held     __/--\\__                                 a counter per rank
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipezoo.schedule.action import Op
from pipezoo.simulator.timeline import Timeline

WAIT = "wait"  # category of a slice that is no action
LEAST = 1e-9  # seconds; a trace has no shorter stretch


class Kept(NamedTuple):
    """``[num_stages]`` each: bytes that a stage's forward keeps for its backward, and what of them I gives back."""

    activation_bytes: NDArray[np.float64]
    freed_by_input_grad: NDArray[np.float64]


def waits_and_messages(process: int, timeline: Timeline, source: Mapping[int, int]) -> Iterator[str]:
    """Events of one timeline.

    Args:
        source: by span, the span on another rank whose message it needs.
    """
    names = [_name(timeline, i) for i in range(timeline.num_spans)]
    start, end, rank = timeline.start.tolist(), timeline.end.tolist(), timeline.rank.tolist()
    free: dict[int, float] = {}
    for i in np.lexsort((timeline.start, timeline.rank)).tolist():
        before, from_ = free.get(rank[i], 0.0), source.get(i)
        free[rank[i]] = max(before, end[i])
        made = before if from_ is None else min(start[i], max(before, end[from_]))
        if from_ is not None and made - before > LEAST:
            told = {"cause": "input", "waits_for": names[from_], "of_rank": rank[from_], "before": names[i]}
            yield _slice(process, rank[i], f"waits for {names[from_]}", before, made, told)
        if start[i] - made > LEAST:
            cause = "message" if made > before else "late"
            yield _slice(process, rank[i], cause, made, start[i], {"cause": cause, "before": names[i]})
        if from_ is not None:
            yield from _message(process, i, f"{names[from_]} > {names[i]}", end[from_], start[i], rank[i])


def held(process: int, timeline: Timeline, kept: Kept) -> Iterator[str]:
    """A counter for each rank: bytes that it holds for the backward. F adds at its start, the rest frees at its end."""
    keeps, frees = kept
    now = np.zeros(timeline.num_ranks)
    change = np.zeros(timeline.num_spans)
    for op, amount in ((Op.F, keeps), (Op.B, -keeps), (Op.I, -frees), (Op.W, frees - keeps)):
        chosen = timeline.op == op
        change[chosen] = amount[timeline.stage[chosen]]
    when = np.where(timeline.op == Op.F, timeline.start, timeline.end)
    for i in np.argsort(when, kind="stable").tolist():
        if change[i]:
            rank = int(timeline.rank[i])
            now[rank] += change[i]
            yield _event("C", process, rank, when[i], name=f"held by rank {rank}", args={"bytes": float(now[rank])})


def _message(process: int, i: int, name: str, sent: float, arrived: float, rank: int) -> Iterator[str]:
    """Both ends of a message, which may overlap with others."""
    about = {"cat": "message", "id": f"{process}.{i}", "name": name}
    yield _event("b", process, rank, sent, **about, args={"seconds": arrived - sent})
    yield _event("e", process, rank, max(sent, arrived), **about)


def _slice(process: int, rank: int, name: str, start: float, end: float, args: dict[str, Any]) -> str:
    begin = round(start * 1e9)
    length = (round(end * 1e9) - begin) / 1e3
    return _event("X", process, rank, start, name=name, cat=WAIT, dur=length, args=args, cname="grey")


def _event(kind: str, process: int, rank: int, time: float, **more: Any) -> str:
    return json.dumps({"ph": kind, "pid": process, "tid": rank, "ts": round(time * 1e9) / 1e3, **more})


def _name(timeline: Timeline, i: int) -> str:
    microbatch = int(timeline.microbatch[i])
    return f"{timeline.stage[i]}{Op(int(timeline.op[i])).name}{microbatch if microbatch >= 0 else ''}"
