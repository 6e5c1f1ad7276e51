"""What must hold where a table writes its messages and gradient reductions out.

    rank 0   0F0 0SEND_F0 ...          a message between two ranks is sent once, after what makes it,
    rank 1   1RECV_F0 1F0 ...          and received once, before what uses it

Messages between two ranks carry no name: the k-th that one sends must be the k-th that the other receives.
"""

from __future__ import annotations

import numpy as np

from pipezoo.errors import ScheduleError
from pipezoo.schedule.action import Action, Op
from pipezoo.schedule.table import Computations, Ints, Table, first


def check_messages(
    table: Table, computations: Computations, positions: dict[Op, Ints], stage_to_rank: tuple[int, ...], source: Ints
) -> None:
    """Prove every message, and let each computation's ``source`` be the send it waits for (changed in place).

    Raises:
        ScheduleError: a message is incomplete, not needed, too early, too late, or meets another one.
    """
    none = np.full_like(computations.forward, -1)
    forward = (positions.get(Op.SEND_F, none), positions.get(Op.RECV_F, none), computations.forward)
    back = (positions.get(Op.SEND_B, none), positions.get(Op.RECV_B, none), computations.back)
    ways = (
        _check_one_way(table, *forward, stage_to_rank, (Op.SEND_F, Op.RECV_F), 1),
        _check_one_way(table, *back, stage_to_rank, (Op.SEND_B, Op.RECV_B), -1),
    )
    sends, receives, uses = (np.concatenate(column) for column in zip(*ways, strict=True))
    source[uses] = sends
    _check_meetings(table, sends, receives)


def _check_one_way(
    table: Table,
    sends: Ints,
    receives: Ints,
    computed: Ints,
    stage_to_rank: tuple[int, ...],
    ops: tuple[Op, Op],
    step: int,
) -> tuple[Ints, Ints, Ints]:
    """The indices of all messages from stages to their neighbours ``step`` further: send, receive, and the use."""
    ranks = np.array(stage_to_rank)
    crosses = np.zeros(len(ranks), dtype=bool)  # from this stage to the next in flow order
    sends, receives, computed, ranks = (a[::step] for a in (sends, receives, computed, ranks))
    crosses[:-1] = ranks[:-1] != ranks[1:]
    arrives = np.roll(crosses, 1)
    for message, wanted, verb in ((sends, crosses, "goes to"), (receives, arrives, "comes from")):
        if stray := first((message >= 0) & ~wanted[:, None]):
            raise table.fault(message[stray], f"{verb} no other rank")
    stages = np.flatnonzero(crosses)
    sends, receives, made, uses = sends[stages], receives[stages + 1], computed[stages], computed[stages + 1]
    if lacking := first((sends < 0) | (receives < 0)):
        raise _missing(table, ops, step, int(sends[lacking]), int(receives[lacking]), int(uses[lacking]))
    if early := first(sends < made):
        raise table.fault(sends[early], f"comes before {table.show(made[early])}, which makes it")
    if late := first(receives > uses):
        raise table.fault(receives[late], f"comes after {table.show(uses[late])}, which needs it")
    return sends.ravel(), receives.ravel(), uses.ravel()


def _missing(table: Table, ops: tuple[Op, Op], step: int, send: int, receive: int, use: int) -> ScheduleError:
    """The error about a message of which one end or both are not written."""
    stage, microbatch = int(table.stage[use]), int(table.microbatch[use])
    sent, received = Action(stage - step, ops[0], microbatch), Action(stage, ops[1], microbatch)
    if send >= 0:
        return table.fault(send, f"is not received: rank {table.rank[use]} has no {received}")
    if receive >= 0:
        return table.fault(receive, f"is not sent: there is no {sent}")
    why = f"waits for {sent} and {received}; where some messages are written out, all must be"
    return table.fault(use, why)


def _check_meetings(table: Table, sends: Ints, receives: Ints) -> None:
    """The k-th send from one rank to another is the k-th that the other receives from it."""
    way = table.rank[sends].astype(np.int64) * len(table.offsets) + table.rank[receives]
    order = np.lexsort((sends, way))
    way, receives, sends = way[order], receives[order], sends[order]
    if wrong := first((way[1:] == way[:-1]) & (receives[1:] < receives[:-1])):
        i = wrong[0]
        sender = table.rank[sends[i]]
        raise table.fault(
            receives[i + 1],
            f"comes before {table.show(receives[i])}, but rank {sender} sends {table.show(sends[i])} before "
            f"{table.show(sends[i + 1])}: messages between two ranks arrive in the order in which they are sent",
        )


def check_reductions(table: Table, computations: Computations) -> None:
    """A stage reduces its gradients at most once, after its last backward.

    Raises:
        ScheduleError: it does so twice, or too early.
    """
    if not (table.op == Op.REDUCE_GRAD).any():
        return
    at = np.flatnonzero(table.op == Op.REDUCE_GRAD)
    last = np.maximum(computations.back, computations.weight).max(axis=1)
    done: set[int] = set()
    for i in at.tolist():
        stage = int(table.stage[i])
        if stage in done:
            raise table.fault(i, "is there twice; once is right")
        if i < last[stage]:
            raise table.fault(i, f"comes before {table.show(last[stage])}, the last gradient of its stage")
        done.add(stage)
