"""Lowering: from the order of computations to what each rank executes, messages included.

    schedule          rank 0: 0F0 0F1 ...                rank 1: 1F0 ...
    lowered           rank 0: 0F0 0SEND_F0 0F1 ...       rank 1: 1RECV_F0 1F0 ...

Messages between two ranks carry no name: the k-th send meets the k-th receive, and a GPU runs both ends in the order
in which they were queued. So all messages are put into **one** order over all ranks, the order in which a pipeline
with equal costs would make them, and each is written into the sender's and the receiver's list at that moment. No pair
of ranks can then disagree about what comes next, and no rank can wait for a message that is queued behind one that
waits for it. Linear in the actions, but for sorting them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipezoo.schedule.action import COMPUTE, Action, Op
from pipezoo.schedule.event_loop import run_event_loop
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedule.table import Ints, Mask

RECEIVES = (Op.RECV_F, Op.RECV_B)


class _Rows(NamedTuple):
    """Actions to be written into the list of ``rank``, sorted by ``when``."""

    rank: Ints
    when: NDArray[np.int64]
    op: NDArray[np.int8]
    stage: Ints
    microbatch: Ints


def lower(
    schedule: Schedule, stage_to_rank: tuple[int, ...] | None = None, skips: Sequence[tuple[int, int]] = ()
) -> list[list[Action]]:
    """The actions that each rank executes: :func:`with_messages` as one list per executing rank.

    Args:
        skips: from which stage to which tensors go beside those between neighbours. Their messages come right behind
            what makes them, as those do. No order becomes illegal by them: a later stage waits for all before it.
    """
    placed = np.array(stage_to_rank or schedule.stage_to_rank, dtype=np.int32)
    crossing = [(before, after) for before, after in skips if placed[before] != placed[after]]
    if not crossing:
        return list(with_messages(schedule, stage_to_rank).order)
    schedule = schedule.compute_only()
    moment = _moments(schedule)
    rows = _all_rows(schedule, moment, placed)
    peers = [np.full(len(row.rank), -1, np.int32) for row in rows]
    for before, after in crossing:
        for one, other, *made_by in ((before, after, Op.F), (after, before, Op.B, Op.I)):
            for row, peer in zip(_skip(schedule, moment, placed, one, other, *made_by), (other, one), strict=True):
                rows.append(row)
                peers.append(np.full(len(row.rank), peer, np.int32))
    columns = [np.concatenate(column) for column in (*zip(*rows, strict=True), peers)]
    order = np.lexsort((columns[1], columns[0]))
    actions: list[list[Action]] = [[] for _ in range(placed.max() + 1)]
    for rank, _, op, stage, microbatch, peer in zip(*(column[order].tolist() for column in columns), strict=True):
        action = Action.of_row(stage, op, microbatch)
        actions[rank].append(action if peer < 0 else action._replace(peer=peer))
    return actions


def receives_first(actions: Sequence[Action]) -> list[Action]:
    """The same actions with every receive, in its order, before all else.

    For a transport that takes receives in advance and into buffers of their own, as gloo does: a message whose receive
    is posted goes straight to its place, any other has to be announced, asked for and sent. Not for NCCL, where a
    posted receive holds up what is queued behind it.
    """
    receives = [action for action in actions if action.op in RECEIVES]
    return receives + [action for action in actions if action.op not in RECEIVES]


def with_sharding(actions: Sequence[Action]) -> list[Action]:
    """The same actions with an ``UNSHARD`` before the first of each stage that computes, and a ``RESHARD`` behind its
    ``REDUCE_GRAD``. An order that has some of them stays as it is."""
    if any(action.op == Op.UNSHARD for action in actions):
        return list(actions)
    found: list[Action] = []
    there: set[int] = set()
    for action in actions:
        if action.op in COMPUTE and action.stage not in there:
            there.add(action.stage)
            found.append(Action(action.stage, Op.UNSHARD))
        found.append(action)
        if action.op == Op.REDUCE_GRAD:
            found.append(Action(action.stage, Op.RESHARD))
    return found


def with_messages(schedule: Schedule, stage_to_rank: tuple[int, ...] | None = None) -> Schedule:
    """The schedule with everything written out that its ranks execute.

    Args:
        schedule: with or without messages of its own; where it has some, their places are kept.
        stage_to_rank: where the stages really are; default: where the schedule says. ``(0,) * num_stages`` puts all
            ranks' actions into one list, in an order that is legal for a single process.

    Returns:
        Computations, ``SEND``/``RECV`` where neighbouring stages are on different ranks, and one ``REDUCE_GRAD`` a
        stage, after its last backward and the message about it. Overlapped pairs become two actions in a row, so that
        the first one's message need not wait for the second.
    """
    placed = np.array(stage_to_rank or schedule.stage_to_rank, dtype=np.int32)
    if schedule.has_messages and tuple(placed) == schedule.stage_to_rank:
        moment = np.arange(schedule.num_actions)
        messages = []
    else:
        schedule = schedule.compute_only()
        moment = _moments(schedule)
        messages = _neighbours(schedule, moment, placed)
    rows = _all_rows(schedule, moment, placed, messages)
    rank, when, op, stage, microbatch = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.lexsort((when, rank))
    offsets = np.searchsorted(rank[order], np.arange(placed.max() + 2))
    return Schedule(op[order], stage[order], microbatch[order], offsets, None, schedule.name)


def _moments(schedule: Schedule) -> NDArray[np.int64]:
    """``[num_actions]``: when each runs in a pipeline with equal costs, as its place in the order of all."""
    moment = np.empty(schedule.num_actions, dtype=np.int64)
    ends = run_event_loop(schedule.offsets, schedule.source, 1.0)
    moment[np.argsort(ends, kind="stable")] = np.arange(len(moment))
    return moment


def _all_rows(
    schedule: Schedule, moment: NDArray[np.int64], placed: Ints, messages: Sequence[_Rows] | None = None
) -> list[_Rows]:
    """Computations, messages between neighbours, reductions."""
    own = _Rows(placed[schedule.stage], 4 * moment, schedule.op, schedule.stage, schedule.microbatch)
    between = _neighbours(schedule, moment, placed) if messages is None else messages
    return [own, *between, _reductions(schedule, moment, placed)]


def _neighbours(schedule: Schedule, moment: NDArray[np.int64], placed: Ints) -> list[_Rows]:
    return [*_messages(schedule, moment, placed, Op.F), *_messages(schedule, moment, placed, Op.B, Op.I)]


def _skip(
    schedule: Schedule, moment: NDArray[np.int64], placed: Ints, source: int, target: int, *made_by: Op
) -> tuple[_Rows, _Rows]:
    """Sends and receives of what stage ``source`` hands to stage ``target`` over the heads of others."""
    send, receive = (Op.SEND_F, Op.RECV_F) if Op.F in made_by else (Op.SEND_B, Op.RECV_B)
    at = np.flatnonzero(np.isin(schedule.op, made_by) & (schedule.stage == source))
    microbatch, when = schedule.microbatch[at], 4 * moment[at] + 1

    def ends(stage: int, op: Op) -> _Rows:
        rank, kind = np.full(len(at), placed[stage], np.int32), np.full(len(at), op, np.int8)
        return _Rows(rank, when, kind, np.full(len(at), stage, np.int32), microbatch)

    return ends(source, send), ends(target, receive)


def _messages(schedule: Schedule, moment: NDArray[np.int64], placed: Ints, *made_by: Op) -> tuple[_Rows, _Rows]:
    """Sends and receives of all results that cross ranks, right behind what makes them."""
    forward = Op.F in made_by
    send, receive, step = (Op.SEND_F, Op.RECV_F, 1) if forward else (Op.SEND_B, Op.RECV_B, -1)
    to = np.arange(len(placed)) + step
    crosses: Mask = (to >= 0) & (to < len(placed))
    crosses &= placed != placed[to % len(placed)]
    at = np.flatnonzero(np.isin(schedule.op, made_by) & crosses[schedule.stage])
    stage, microbatch, when = schedule.stage[at], schedule.microbatch[at], 4 * moment[at] + 1
    return (
        _Rows(placed[stage], when, np.full(len(at), send, np.int8), stage, microbatch),
        _Rows(placed[stage + step], when, np.full(len(at), receive, np.int8), stage + np.int32(step), microbatch),
    )


def _reductions(schedule: Schedule, moment: NDArray[np.int64], placed: Ints) -> _Rows:
    """A ``REDUCE_GRAD`` for each stage that has none, behind its last backward and the message that follows it."""
    last = np.full(len(placed), -1)
    ends = np.flatnonzero(np.isin(schedule.op, (Op.B, Op.W, Op.SEND_B)))
    np.maximum.at(last, schedule.stage[ends], moment[ends])
    stages = np.setdiff1d(np.arange(len(placed), dtype=np.int32), schedule.stage[schedule.op == Op.REDUCE_GRAD])
    kind = np.full(len(stages), Op.REDUCE_GRAD, np.int8)
    return _Rows(placed[stages], 4 * last[stages] + 2, kind, stages, np.full(len(stages), -1, np.int32))
