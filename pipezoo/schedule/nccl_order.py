"""Whether the messages of a schedule also meet where nothing buffers them.

On a CPU a send leaves its rank at once. A GPU has one queue of sends and receives, worked off in the order in which
they were queued: a message travels when it is at the head of both its queues. So an order may be legal and still
stand for ever:

    rank 0   ... 0SEND_F1 0RECV_B0 ...      each rank's first message waits
    rank 1   ... 1SEND_B0 1RECV_F1 ...      behind the other rank's first

What ``lowering.py`` writes is free of this; messages that a user wrote may not be.
"""

from __future__ import annotations

from collections import deque

from pipezoo.errors import ScheduleError
from pipezoo.schedule.action import Action, Op
from pipezoo.schedule.schedule import Schedule

# of each kind of message: how far from the action's own stage the other end is, and whether it goes forward
_OTHER_END = {Op.SEND_F: (1, True), Op.RECV_F: (-1, True), Op.SEND_B: (-1, False), Op.RECV_B: (1, False)}
_INPUT = {Op.F: Op.RECV_F, Op.B: Op.RECV_B, Op.I: Op.RECV_B}


def check_queues(schedule: Schedule) -> None:
    """Run the messages that ``schedule`` has written out by the rule of the queues; linear in the actions.

    Raises:
        ScheduleError: they wait in a circle; names each rank of it and what is at the head of its queue.
    """
    todo = [deque(part for action in order for part in action.parts or (action,)) for order in schedule.order]
    queues: list[deque[Action]] = [deque() for _ in todo]
    expected = {action for order in todo for action in order if action.op in (Op.RECV_F, Op.RECV_B)}
    awake = list(range(len(todo)))
    while awake:
        rank = awake.pop()
        _queue_up(todo[rank], queues[rank], expected)
        if not queues[rank]:
            continue
        head = queues[rank][0]
        other = _other_end(head)
        peer = schedule.stage_to_rank[other.stage]
        if queues[peer] and queues[peer][0] == other:
            expected -= {queues[rank].popleft(), queues[peer].popleft()}
            awake += [rank, peer]
    if any(queues):
        raise _circle(schedule, queues)


def _queue_up(todo: deque[Action], queue: deque[Action], expected: set[Action]) -> None:
    """Queue a rank's messages up to the first computation whose input has not arrived.

    Inputs from a stage of the same rank are there by the rank's own order, which the schedule has proved.
    """
    while todo:
        action = todo[0]
        if action.op in _INPUT and Action(action.stage, _INPUT[action.op], action.microbatch) in expected:
            return
        if action.op in _OTHER_END:
            queue.append(action)
        todo.popleft()


def _other_end(message: Action) -> Action:
    """The receive of a send, and the send of a receive."""
    step, forward = _OTHER_END[message.op]
    sends = message.op in (Op.SEND_F, Op.SEND_B)
    op = (Op.RECV_F if sends else Op.SEND_F) if forward else (Op.RECV_B if sends else Op.SEND_B)
    return Action(message.stage + step, op, message.microbatch)


def _circle(schedule: Schedule, queues: list[deque[Action]]) -> ScheduleError:
    rank = next(rank for rank, queue in enumerate(queues) if queue)
    path: list[int] = []
    while rank not in path:
        path.append(rank)
        rank = schedule.stage_to_rank[_other_end(queues[rank][0]).stage]
    circle = path[path.index(rank) :]
    heads = ", ".join(f"rank {rank} at {queues[rank][0]}" for rank in sorted(circle))
    return ScheduleError(
        f"on a GPU the messages wait for each other: {heads}; queue them in one order on both ranks, or write none"
    )
