"""What an action of a stage waits for beside its neighbour: skips, that is tensors of a stage further away.

0F0 ──► 1F0 ──► 2F0 ──► 3F0          3F0 also waits for what 0F0 sent to stage 3, and its gradient for 0B0
   └──────── skip 0 → 3 ─────▲       comes later only where the skip is slow and the way through the others quick
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipezoo.errors import MISSING, ArgumentError
from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedule.table import Ints
from pipezoo.validators import check_int, check_number

Floats = NDArray[np.float64]
KEYS = ("from", "to", "bytes")


class SkipMessage(NamedTuple):
    """What one stage hands to a later one that is not the next, for one microbatch; its gradient has as many bytes."""

    before: int
    after: int
    num_bytes: float


class Wait(NamedTuple):
    """One more thing to wait for: ``[num_actions]`` its index or -1, and how long after its end it is there."""

    source: Ints
    lag: Floats


def messages_of(data: object) -> tuple[SkipMessage, ...]:
    """Read ``[{from: 0, to: 3, bytes: 4096}]``.

    Raises:
        ValueError: one line that names the entry and what would be right.
    """
    if not isinstance(data, Sequence) or isinstance(data, str):
        raise ArgumentError("skips", data, "must be a list of {from, to, bytes}")
    return tuple(_message(f"skips[{number}]", entry) for number, entry in enumerate(data))


def _message(name: str, entry: object) -> SkipMessage:
    if not isinstance(entry, Mapping) or set(entry) != set(KEYS):
        raise ArgumentError(name, MISSING, f"must have the keys {', '.join(KEYS)}")
    before = check_int(f"{name}.from", entry["from"], 0)
    after = check_int(f"{name}.to", entry["to"], before + 2)
    return SkipMessage(before, after, check_number(f"{name}.bytes", entry["bytes"]))


def as_dicts(messages: Sequence[SkipMessage]) -> list[dict[str, Any]]:
    """What :func:`messages_of` reads."""
    return [dict(zip(KEYS, message, strict=True)) for message in messages]


def waits(schedule: Schedule, seconds: Sequence[tuple[SkipMessage, float]]) -> list[Wait]:
    """As many as the stage with the most skips needs.

    Args:
        schedule: computations only.
        seconds: what each message takes.
    """
    found: list[Wait] = []
    taken: dict[tuple[int, bool], int] = {}
    places = {ops: _places(schedule, ops) for ops in ((Op.F,), (Op.B, Op.I))}
    for message, takes in seconds:
        for source, target, ops in (
            (message.before, message.after, (Op.F,)),
            (message.after, message.before, (Op.B, Op.I)),
        ):
            number = taken.get((target, Op.F in ops), 0)
            taken[target, Op.F in ops] = number + 1
            if number == len(found):
                found.append(Wait(np.full(schedule.num_actions, -1, np.int32), np.zeros(schedule.num_actions)))
            found[number].source[places[ops][target]] = places[ops][source]
            found[number].lag[places[ops][target]] = takes
    return found


def _places(schedule: Schedule, ops: tuple[Op, ...]) -> Ints:
    """``[num_stages, num_microbatches]``: the index of each action of these ops."""
    at = np.flatnonzero(np.isin(schedule.op, ops))
    places = np.zeros((schedule.num_stages, schedule.num_microbatches), dtype=np.int32)
    places[schedule.stage[at], schedule.microbatch[at]] = at
    return places
