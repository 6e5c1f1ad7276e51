"""What makes a table of actions a schedule, and the error that says why it is none.

For S stages and M microbatches, with every stage on one rank:

    each   sF m                    exactly once
    each   sB m  or  sI m + sW m   exactly once, and whole
    sF m   before sB m or sI m;    sI m before sW m
    sF m   waits for  (s-1)F m;    sB m, sI m wait for the backward of (s+1) on m        ... and this never deadlocks

Messages that are written out are proved by ``messages.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipezoo.errors import ScheduleError
from pipezoo.schedule.action import COMPUTE, MESSAGES, Action, Op
from pipezoo.schedule.event_loop import Deadlock, check_it_ends
from pipezoo.schedule.messages import check_messages, check_reductions
from pipezoo.schedule.sharding import check_sharding
from pipezoo.schedule.table import Computations, Ints, Mask, Table, first

NAMED_IN_A_DEADLOCK = 6  # ranks
MOST_ACTIONS = 2**29  # so that indices, and stages times microbatches, fit in 32 bits


@dataclass(frozen=True)
class Facts:
    """What a legal table says of itself: ``source[i]`` is the index of what action ``i`` waits for, or -1; ``rank[i]``
    is the rank that runs it."""

    stage_to_rank: tuple[int, ...]
    num_microbatches: int
    source: Ints
    rank: Ints


def prove(
    op: NDArray[np.int8], stage: Ints, microbatch: Ints, offsets: NDArray[np.int64], overlap: Mask | None
) -> Facts:
    """Check the table; the arguments are those of :class:`~pipezoo.schedule.schedule.Schedule`.

    Raises:
        ScheduleError: with the first rank and action at fault, and what is missing or waited for.
    """
    _check_columns(op, stage, microbatch, offsets, overlap)
    ranks = np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))
    table = Table(op, stage, microbatch, offsets, ranks)
    stage_to_rank = _stage_to_rank(table)
    num_microbatches = _num_microbatches(table, len(stage_to_rank))
    positions = _positions(table, len(stage_to_rank), num_microbatches)
    computations = _computations(table, positions, stage_to_rank)
    _check_local_order(table, computations)
    source = _sources(table, computations)
    if any(kind in positions for kind in MESSAGES):
        check_messages(table, computations, positions, stage_to_rank, source)
    check_reductions(table, computations)
    check_sharding(table)
    _check_pairs(table, overlap, source)
    _check_deadlock(table, source)
    return Facts(stage_to_rank, num_microbatches, source, ranks)


def _check_columns(
    op: NDArray[np.int8], stage: Ints, microbatch: Ints, offsets: NDArray[np.int64], overlap: Mask | None
) -> None:
    if len(offsets) < 2 or not len(op):
        raise ScheduleError("a schedule needs at least one rank with one action")
    if len(op) > MOST_ACTIONS:
        raise ScheduleError(f"{len(op)} actions; at most {MOST_ACTIONS} have room in one schedule")
    if not len(op) == len(stage) == len(microbatch) == (len(op) if overlap is None else len(overlap)):
        raise ScheduleError("op, stage, microbatch and overlap must be equally long")
    counts = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != len(op) or (counts < 0).any():
        raise ScheduleError("offsets must rise from 0 to the number of actions")
    if empty := first(counts == 0):
        raise ScheduleError(f"rank {empty[0]} has no action; every rank runs at least one stage")
    known = (op >= Op.F) & (op <= Op.REDUCE_GRAD)
    if wrong := first(~known | (stage < 0) | ((microbatch >= 0) != (op < Op.UNSHARD))):
        i = wrong[0]
        rank = int(np.searchsorted(offsets, i, side="right")) - 1
        raise ScheduleError(
            f"rank {rank}: there is no action with op {op[i]}, stage {stage[i]} and microbatch {microbatch[i]}", i
        )


def _stage_to_rank(table: Table) -> tuple[int, ...]:
    num_stages = int(table.stage.max()) + 1
    if num_stages > len(table.op):
        raise table.fault(
            table.stage.argmax(), f"asks for {num_stages} stages, but there are {len(table.op)} actions in all"
        )
    owner = np.full(num_stages, -1, dtype=np.int32)
    owner[table.stage] = table.rank
    if absent := first(owner < 0):
        why = f"asks for {num_stages} stages, but stage {absent[0]} has no action on any rank"
        raise table.fault(table.stage.argmax(), why)
    if away := first(owner[table.stage] != table.rank):
        stage = table.stage[away[0]]
        of_stage = np.flatnonzero(table.stage == stage)
        home = np.bincount(table.rank[of_stage]).argmax()  # most of its actions are right
        stranger = of_stage[np.argmax(table.rank[of_stage] != home)]
        raise table.fault(stranger, f"is on the wrong rank: stage {stage} is on rank {home}, and a stage has one rank")
    return tuple(owner.tolist())


def _num_microbatches(table: Table, num_stages: int) -> int:
    num_microbatches = int(table.microbatch.max()) + 1
    num_forwards = int(np.count_nonzero(table.op == Op.F))
    if num_stages * num_microbatches > 2 * num_forwards + 64:  # far from complete; do not even allocate for it
        raise table.fault(
            table.microbatch.argmax(),
            f"asks for {num_microbatches} microbatches on {num_stages} stages, "
            f"but there are {num_forwards} forwards, not {num_stages * num_microbatches}",
        )
    return max(1, num_microbatches)


def _positions(table: Table, num_stages: int, num_microbatches: int) -> dict[Op, Ints]:
    """For each op present that names a microbatch: ``[num_stages, num_microbatches]`` its index, -1 for none."""
    positions = {}
    key = table.stage * np.int32(num_microbatches) + table.microbatch
    for op in (*COMPUTE, *MESSAGES):
        at = np.flatnonzero(table.op == op)
        if not len(at):
            continue
        keys = key[at]
        position = np.full(num_stages * num_microbatches, -1, dtype=np.int32)
        position[keys] = at
        if np.count_nonzero(position >= 0) < len(at):
            twice = int(np.argmax(position[keys] != at))
            raise table.fault(position[keys[twice]], "is there twice; once is right")
        positions[op] = position.reshape(num_stages, num_microbatches)
    return positions


def _computations(table: Table, positions: dict[Op, Ints], stage_to_rank: tuple[int, ...]) -> Computations:
    """Each forward and each backward is there, and whole."""
    num_microbatches = next(iter(positions.values())).shape[1] if positions else 1
    none = np.full((len(stage_to_rank), num_microbatches), -1, dtype=np.int32)
    forward, full, inputs, weight = (positions.get(op, none) for op in COMPUTE)

    def missing(at: tuple[int, ...], op: Op, why: str) -> ScheduleError:
        return ScheduleError(f"rank {stage_to_rank[at[0]]}: {Action(at[0], op, at[1])} is missing; {why}")

    if lacking := first(forward < 0):
        last = int(table.microbatch.argmax())
        each = f"every stage forwards the microbatches 0 to {num_microbatches - 1}"
        raise missing(lacking, Op.F, f"{each} ({table.show(last)} on rank {table.rank[last]} is the highest)")
    if both := first((full >= 0) & ((inputs >= 0) | (weight >= 0))):
        half = Op.I if inputs[both] >= 0 else Op.W
        other = Action(both[0], half, both[1])
        raise table.fault(full[both], f"and {other}: a backward is whole (B) or in halves (I and W), not both")
    if lacking := first((full < 0) & (inputs < 0) & (weight < 0)):
        halves = f"or {Action(lacking[0], Op.I, lacking[1])} and {Action(lacking[0], Op.W, lacking[1])}"
        raise missing(lacking, Op.B, f"{Action(lacking[0], Op.F, lacking[1])} needs its backward, this {halves}")
    if single := first((inputs >= 0) != (weight >= 0)):
        there, lacks = (Op.I, Op.W) if inputs[single] >= 0 else (Op.W, Op.I)
        raise missing(single, lacks, f"{Action(single[0], there, single[1])} is the other half of that backward")
    return Computations(forward, np.maximum(full, inputs), weight)


def _check_local_order(table: Table, computations: Computations) -> None:
    for sooner, later in (
        (computations.forward, computations.back),
        (computations.back, computations.weight),
    ):
        if wrong := first((later >= 0) & (later < sooner)):
            raise table.fault(later[wrong], f"comes before {table.show(sooner[wrong])}, which it needs")


def _sources(table: Table, computations: Computations) -> Ints:
    """``[num_actions]``: the computation of the neighbouring stage that each action needs."""
    source = np.full(len(table.op), -1, dtype=np.int32)
    source[computations.forward[1:]] = computations.forward[:-1]
    source[computations.back[:-1]] = computations.back[1:]
    return source


def _check_pairs(table: Table, overlap: Mask | None, source: Ints) -> None:
    """An OVERLAP_F_B joins two neighbours that do not wait for each other."""
    if overlap is None or not overlap.any():
        return
    pair = np.flatnonzero(overlap)
    if pair[-1] == len(overlap) - 1:
        raise table.fault(pair[-1], "overlaps with nothing: it is the last action")
    after = pair + 1
    if wrong := first(overlap[after] | (table.rank[after] != table.rank[pair])):
        i = int(pair[wrong])
        raise table.fault(i, "overlaps with exactly one other action, the next one of its rank")
    if wrong := first((table.op[pair] > Op.W) | (table.op[after] > Op.W)):
        i = int(pair[wrong])
        raise table.fault(i, f"cannot overlap with {table.show(i + 1)}: only computations overlap")
    same = (table.stage[pair] == table.stage[after]) & (table.microbatch[pair] == table.microbatch[after])
    if wrong := first(same | (source[after] == pair)):
        i = int(pair[wrong])
        raise table.fault(i, f"cannot overlap with {table.show(i + 1)}, which needs it")


def _check_deadlock(table: Table, source: Ints) -> None:
    try:
        check_it_ends(table.offsets, source, table.rank)
    except Deadlock as stuck:
        raise _deadlock(table, source, stuck.heads) from None


def _deadlock(table: Table, source: Ints, heads: list[int]) -> ScheduleError:
    """The circle of ranks that wait for each other, told from its lowest rank on."""
    rank = next(rank for rank, head in enumerate(heads) if head >= 0)
    path: list[int] = []
    while rank not in path:
        path.append(rank)
        rank = int(table.rank[source[heads[rank]]])
    circle = path[path.index(rank) :]
    turn = circle.index(min(circle))
    circle = circle[turn:] + circle[:turn]
    head = heads[circle[0]]
    if len(circle) == 1:
        return table.fault(head, f"comes before {table.show(source[head])}, which it waits for")
    waits = []
    for rank in circle[:NAMED_IN_A_DEADLOCK]:
        needs = int(source[heads[rank]])
        other = int(table.rank[needs])
        waits.append(
            f"rank {rank} waits at {table.show(heads[rank])} for {table.show(needs)}, "
            f"which rank {other} has behind {table.show(heads[other])}"
        )
    more = f"; ... {len(circle)} ranks in a circle" if len(circle) > len(waits) else ""
    return ScheduleError("the order deadlocks: " + "; ".join(waits) + more, head)
