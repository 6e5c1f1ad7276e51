"""Lowering: from the order of computations to what each rank executes, messages included.

    schedule          rank 0: 0F0 0F1 ...                rank 1: 1F0 ...
    lowered           rank 0: 0F0 0SEND_F0 0F1 ...       rank 1: 1RECV_F0 1F0 ...

Messages between two ranks carry no name: the k-th send meets the k-th receive, and a GPU runs both ends in the order
in which they were queued. So all messages are put into **one** order over all ranks, the order in which a pipeline
with equal costs would make them, and each is written into the sender's and the receiver's list at that moment. No pair
of ranks can then disagree about what comes next, and no rank can wait for a message that is queued behind one that
waits for it. One pass over the actions: linear in their number.
"""

from __future__ import annotations

import numpy as np

from pipezoo.action import COMPUTE, Action, Op
from pipezoo.clock import play
from pipezoo.schedule import Schedule


def lower(schedule: Schedule, stage_to_rank: tuple[int, ...] | None = None) -> list[list[Action]]:
    """The actions that each rank executes.

    Args:
        schedule: with or without messages of its own; where it has some, their places are kept.
        stage_to_rank: where the stages really are; default: where the schedule says. ``(0,) * num_stages`` puts all
            ranks' actions into one list, in an order that is legal for a single process.

    Returns:
        One list per executing rank: computations, ``SEND``/``RECV`` where neighbouring stages are on different ranks,
        and one ``REDUCE_GRAD`` a stage after its last backward. Overlapped pairs are two actions in a row, so that the
        first one's message need not wait for the second.
    """
    placed = stage_to_rank or schedule.stage_to_rank
    if schedule.has_messages and placed == schedule.stage_to_rank:
        return [
            _with_reductions([part for action in order for part in action.parts or (action,)], schedule)
            for order in schedule.order
        ]
    schedule = schedule.compute_only()
    lists: list[list[Action]] = [[] for _ in range(max(placed) + 1)]
    moment = np.argsort(play(schedule.offsets, schedule.source, 1.0), kind="stable")
    columns = (column[moment].tolist() for column in (schedule.stage, schedule.op, schedule.microbatch))
    for stage, code, microbatch in zip(*columns, strict=True):
        op, own = Op(code), placed[stage]
        lists[own].append(Action(stage, op, microbatch))
        if op == Op.F:
            to, send, receive = stage + 1, Op.SEND_F, Op.RECV_F
        elif op in (Op.B, Op.I):
            to, send, receive = stage - 1, Op.SEND_B, Op.RECV_B
        else:
            continue
        if 0 <= to < len(placed) and placed[to] != own:
            lists[own].append(Action(stage, send, microbatch))
            lists[placed[to]].append(Action(to, receive, microbatch))
    return [_with_reductions(actions, schedule) for actions in lists]


def _with_reductions(actions: list[Action], schedule: Schedule) -> list[Action]:
    """The same list with ``REDUCE_GRAD`` after the last backward of every stage that has none."""
    present = {action.stage for action in actions if action.op == Op.REDUCE_GRAD}
    last = {action.stage: i for i, action in enumerate(actions) if action.op in COMPUTE and action.op != Op.F}
    after = {i: stage for stage, i in last.items() if stage not in present}
    lowered = []
    for i, action in enumerate(actions):
        lowered.append(action)
        if i in after:
            lowered.append(Action(after[i], Op.REDUCE_GRAD))
    return lowered
