"""What makes a table of actions a schedule, and the error that says why it is none.

For S stages and M microbatches, with every stage on one rank:

    each   sF m                    exactly once
    each   sB m  or  sI m + sW m   exactly once, and whole
    sF m   before sB m or sI m;    sI m before sW m
    sF m   waits for  (s-1)F m;    sB m, sI m wait for the backward of (s+1) on m        ... and this never deadlocks

Where messages are written out, each one that crosses ranks is sent once, after it was computed, and received once,
before it is used; and as messages between two ranks carry no name, the k-th send must meet the k-th receive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipezoo.action import COMPUTE, MESSAGES, OF_A_STAGE, Action, Op
from pipezoo.clock import Stuck, play
from pipezoo.errors import ScheduleError

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Facts:
    """What a legal table says of itself; ``source[i]`` is the index of the action that action ``i`` waits for, or -1."""

    stage_to_rank: tuple[int, ...]
    num_microbatches: int
    source: Ints


@dataclass(frozen=True)
class _Table:
    op: NDArray[np.int8]
    stage: Ints
    microbatch: Ints
    offsets: NDArray[np.int64]
    rank: Ints

    def show(self, i: int) -> str:
        microbatch = int(self.microbatch[i])
        return str(Action(int(self.stage[i]), Op(int(self.op[i])), None if microbatch < 0 else microbatch))

    def where(self, i: int) -> str:
        return f"rank {self.rank[i]}: {self.show(i)}"


def prove(
    op: NDArray[np.int8],
    stage: Ints,
    microbatch: Ints,
    offsets: NDArray[np.int64],
    overlap: NDArray[np.bool_] | None,
) -> Facts:
    """Check the table; the arguments are those of :class:`~pipezoo.schedule.Schedule`.

    Raises:
        ScheduleError: with the first rank and action at fault, and what is missing or waited for.
    """
    table = _Table(
        op,
        stage,
        microbatch,
        offsets,
        np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets)),
    )
    _check_shape(table)
    stage_to_rank = _stage_to_rank(table)
    num_stages, num_microbatches = len(stage_to_rank), _num_microbatches(table, len(stage_to_rank))
    positions = _positions(table, num_stages, num_microbatches)
    forward, back, weight = _complete(table, positions, stage_to_rank, num_microbatches)
    _check_local_order(table, forward, back, weight)
    _check_pairs(table, overlap)
    source = _sources(table, forward, back, num_microbatches)
    if np.isin(op, (*MESSAGES, Op.REDUCE_GRAD)).any():
        source = _with_messages(table, source, positions, stage_to_rank, num_microbatches, forward, back, weight)
    _check_deadlock(table, source)
    return Facts(stage_to_rank, num_microbatches, source)


def _check_shape(table: _Table) -> None:
    if len(table.offsets) < 2 or not len(table.op):
        raise ScheduleError("a schedule needs at least one rank with one action")
    if table.offsets[0] != 0 or table.offsets[-1] != len(table.op) or (np.diff(table.offsets) < 0).any():
        raise ScheduleError("offsets must rise from 0 to the number of actions")
    if (empty := np.flatnonzero(np.diff(table.offsets) == 0)).size:
        raise ScheduleError(f"rank {empty[0]} has no action; every rank runs at least one stage")
    known = np.isin(table.op, (*COMPUTE, *MESSAGES, *OF_A_STAGE))
    wants = ~np.isin(table.op, OF_A_STAGE)
    wrong = ~known | (table.stage < 0) | ((table.microbatch >= 0) != wants)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ScheduleError(
            f"rank {table.rank[i]}: there is no action with op {table.op[i]}, stage {table.stage[i]}, "
            f"microbatch {table.microbatch[i]}"
        )


def _stage_to_rank(table: _Table) -> tuple[int, ...]:
    num_stages = int(table.stage.max()) + 1
    if num_stages > len(table.op):
        raise ScheduleError(
            f"{table.where(int(table.stage.argmax()))}, but there are only {len(table.op)} actions in all"
        )
    owner = np.full(num_stages, -1, dtype=np.int32)
    owner[table.stage] = table.rank
    if (absent := np.flatnonzero(owner < 0)).size:
        raise ScheduleError(f"stage {absent[0]} has no action on any rank; stages count from 0 to {num_stages - 1}")
    if (away := owner[table.stage] != table.rank).any():
        i = int(np.argmax(away))
        raise ScheduleError(
            f"{table.where(i)}, but stage {table.stage[i]} is also on rank {owner[table.stage[i]]}; "
            "a stage has one rank"
        )
    return tuple(owner.tolist())


def _num_microbatches(table: _Table, num_stages: int) -> int:
    num_microbatches = int(table.microbatch.max()) + 1
    num_forwards = int(np.count_nonzero(table.op == Op.F))
    if num_stages * num_microbatches > 2 * num_forwards + 64:  # far from complete; do not even allocate for it
        highest = table.where(int(table.microbatch.argmax()))
        raise ScheduleError(
            f"{highest} asks for {num_microbatches} microbatches on {num_stages} stages, "
            f"but there are {num_forwards} forwards"
        )
    return num_microbatches


def _positions(table: _Table, num_stages: int, num_microbatches: int) -> dict[Op, Ints]:
    """For each op that names a microbatch: ``[num_stages * num_microbatches]`` index of its action, -1 for none."""
    positions = {}
    present = set(np.unique(table.op).tolist())
    for op in (*COMPUTE, *MESSAGES):
        if op not in present and op != Op.F:
            continue
        at = np.flatnonzero(table.op == op)
        key = table.stage[at].astype(np.int64) * num_microbatches + table.microbatch[at]
        position = np.full(num_stages * num_microbatches, -1, dtype=np.int32)
        position[key] = at
        if (twice := position[key] != at).any():
            raise ScheduleError(f"{table.where(int(at[np.argmax(twice)]))} is there twice")
        positions[op] = position
    return positions


def _complete(
    table: _Table, positions: dict[Op, Ints], stage_to_rank: tuple[int, ...], num_microbatches: int
) -> tuple[Ints, Ints, Ints]:
    """The positions of every forward, of every B or I, and of every W (-1 where the backward is whole)."""
    none = np.full(len(stage_to_rank) * num_microbatches, -1, dtype=np.int32)
    forward = positions[Op.F]
    full, inputs, weight = (positions.get(op, none) for op in (Op.B, Op.I, Op.W))

    def name(i: int, op: Op) -> str:
        return str(Action(i // num_microbatches, op, i % num_microbatches))

    def rank(i: int) -> str:
        return f"rank {stage_to_rank[i // num_microbatches]}"

    if (lacking := forward < 0).any():
        i = int(np.argmax(lacking))
        raise ScheduleError(
            f"{rank(i)}: {name(i, Op.F)} is missing; "
            f"each stage forwards the microbatches 0..{num_microbatches - 1} once"
        )
    if (both := (full >= 0) & (inputs >= 0)).any():
        i = int(np.argmax(both))
        raise ScheduleError(
            f"{table.where(int(full[i]))} and {name(i, Op.I)}: a backward is whole (B) or split (I and W), not both"
        )
    if (lacking := (full < 0) & (inputs < 0)).any():
        i = int(np.argmax(lacking))
        raise ScheduleError(
            f"{rank(i)}: {name(i, Op.B)} (or {name(i, Op.I)} and {name(i, Op.W)}) is missing; "
            "each forward needs its backward"
        )
    if (odd := (inputs >= 0) != (weight >= 0)).any():
        i = int(np.argmax(odd))
        there, lacks = (Op.I, Op.W) if inputs[i] >= 0 else (Op.W, Op.I)
        raise ScheduleError(
            f"{rank(i)}: {name(i, there)} has no {name(i, lacks)}; the two halves of a backward come together"
        )
    return forward, np.maximum(full, inputs), weight


def _check_local_order(table: _Table, forward: Ints, back: Ints, weight: Ints) -> None:
    for first, second in ((forward, back), (back, weight)):
        wrong = (second >= 0) & (second < first)
        if wrong.any():
            i = int(np.argmax(wrong))
            raise ScheduleError(
                f"{table.where(int(second[i]))} comes before {table.show(int(first[i]))}, which it needs"
            )


def _check_pairs(table: _Table, overlap: NDArray[np.bool_] | None) -> None:
    if overlap is None or not overlap.any():
        return
    first = np.flatnonzero(overlap)
    last = first[-1] == len(overlap) - 1
    second = first[:-1] + 1 if last else first + 1
    if last or overlap[second].any() or (table.rank[second] != table.rank[first]).any():
        raise ScheduleError("an OVERLAP_F_B joins two neighbours of one rank, and no action belongs to two of them")


def _sources(table: _Table, forward: Ints, back: Ints, num_microbatches: int) -> Ints:
    """``[num_actions]``: the compute action of the neighbouring stage that each action needs."""
    source = np.full(len(table.op), -1, dtype=np.int32)
    source[forward[num_microbatches:]] = forward[:-num_microbatches]
    source[back[:-num_microbatches]] = back[num_microbatches:]
    return source


def _with_messages(
    table: _Table,
    source: Ints,
    positions: dict[Op, Ints],
    stage_to_rank: tuple[int, ...],
    num_microbatches: int,
    forward: Ints,
    back: Ints,
    weight: Ints,
) -> Ints:
    """The sources once more, through the written sends; each message is sent and received once, and meets its own."""
    none = np.full(len(forward), -1, dtype=np.int32)
    sent = {}
    for send, receive, step, made in ((Op.SEND_F, Op.RECV_F, 1, forward), (Op.SEND_B, Op.RECV_B, -1, back)):
        sends, receives = positions.get(send, none), positions.get(receive, none)
        for i in range(len(forward)):
            stage, microbatch = divmod(i, num_microbatches)
            to = stage + step
            crosses = 0 <= to < len(stage_to_rank) and stage_to_rank[to] != stage_to_rank[stage]
            j = to * num_microbatches + microbatch
            message = f"{Action(stage, send, microbatch)} / {Action(to, receive, microbatch)}"
            at, there = int(sends[i]), int(receives[j]) if crosses else -1
            if not crosses:
                if at >= 0:
                    raise ScheduleError(f"{table.where(at)}: no other rank waits for it")
                continue
            if at < 0 or there < 0:
                raise ScheduleError(
                    f"the message {message} is not both sent and received; written-out messages must be complete"
                )
            if at < made[i]:
                raise ScheduleError(f"{table.where(at)} comes before {table.show(int(made[i]))}, which makes it")
            used = forward[j] if step == 1 else back[j]
            if there > used:
                raise ScheduleError(f"{table.where(there)} comes after {table.show(int(used))}, which needs it")
            source[used] = at
            sent[at] = there
        if (stray := np.setdiff1d(receives[receives >= 0], list(sent.values()))).size:
            raise ScheduleError(f"{table.where(int(stray[0]))}: no other rank sends it")
    _check_meetings(table, sent)
    _check_reductions(table, np.maximum(back, weight).reshape(-1, num_microbatches).max(axis=1))
    return source


def _check_meetings(table: _Table, sent: dict[int, int]) -> None:
    """The k-th send from one rank to another is the k-th that the other receives from it."""
    latest: dict[tuple[int, int], int] = {}
    for at, there in sorted(sent.items()):
        pair = (int(table.rank[at]), int(table.rank[there]))
        if (before := latest.get(pair, -1)) > there:
            raise ScheduleError(
                f"{table.where(there)} is received before {table.show(before)}, but rank {pair[0]} sends it after: "
                "messages between two ranks arrive in the order in which they are sent"
            )
        latest[pair] = there


def _check_reductions(table: _Table, last: Ints) -> None:
    at = np.flatnonzero(table.op == Op.REDUCE_GRAD)
    counts = np.bincount(table.stage[at], minlength=len(last))
    for i in at.tolist():
        if counts[table.stage[i]] > 1:
            raise ScheduleError(f"{table.where(i)} is there {counts[table.stage[i]]} times; once is right")
        if i < last[table.stage[i]]:
            raise ScheduleError(f"{table.where(i)} comes before {table.show(int(last[table.stage[i]]))}")


def _check_deadlock(table: _Table, source: Ints) -> None:
    try:
        play(table.offsets, source, 1.0)
    except Stuck as stuck:
        waits = [
            f"rank {rank} waits at {table.show(i)} for {table.show(int(source[i]))} of rank {table.rank[source[i]]}"
            for rank, i in enumerate(stuck.heads)
            if i >= 0
        ]
        more = f"; and {len(waits) - 4} more" if len(waits) > 4 else ""
        raise ScheduleError("the order deadlocks: " + "; ".join(waits[:4]) + more) from None
