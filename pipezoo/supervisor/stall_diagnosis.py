"""Why nothing moves, told from where each rank stands.

    rank 0   0F0 0SEND_F0 0F1 0SEND_F1 [0F2] ...      stands in 0F2 since 61 s
    rank 1   1RECV_F0 1F0 1B0 ... [1F2]               1F2 needs 1RECV_F2, that is 0SEND_F2, which rank 0 has not reached

    rank 1 waits at 1RECV_F2 for rank 0, which is in 0F2 for 61 s

Receives are posted early and waited for where their tensor is needed, so a rank that waits stands at a computation.
Following who waits for whom leads to the one that waits for nobody: it is to blame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipezoo.schedule.action import Action, Op
from pipezoo.supervisor.worker_channel import Phase

BEFORE = (Phase.START, Phase.JOIN, Phase.BUILD, Phase.BATCH)  # phases of a step that come before its actions, in order
AFTER = (Phase.UPDATE, Phase.EVALUATE, Phase.SAVE, Phase.LEAVE)
LATE = 1 << 40  # later than any action of a step
NEEDS = {Op.F: (Op.RECV_F, Op.SEND_F, -1), Op.B: (Op.RECV_B, Op.SEND_B, 1), Op.I: (Op.RECV_B, Op.SEND_B, 1)}
UNHEARD = "not heard of"  # how the state of a rank begins whose machine is silent
NUM_LAST = 64  # actions that are kept of each rank
NUM_TOLD = 3  # waiting ranks that are told in one line


@dataclass(frozen=True)
class RankStatus:
    """Where one process stands.

    Args:
        name: like ``rank 1``.
        actions: what it executes in a step; empty where it is no rank.
        step, at: in which step, and before which of its actions, or in which :class:`Phase`.
        seconds: since it moved.
        state: ``running``, ``stopped``, ``not heard of for 3 s``, ``done``, ``failed`` or how it died.
    """

    name: str
    actions: Sequence[Action]
    step: int
    at: int
    seconds: float
    state: str = "running"

    @property
    def is_away(self) -> bool:
        """Whether it is halted, or its machine is silent: what it has sent may not have left it."""
        return self.state == "stopped" or self.state.startswith(UNHEARD)

    @property
    def position(self) -> tuple[int, int]:
        """Sorts by who is further."""
        if self.at >= 0:
            return self.step, self.at
        if self.at in BEFORE:
            return self.step, BEFORE.index(Phase(self.at)) - len(BEFORE)
        return self.step, LATE + AFTER.index(Phase(self.at))

    @property
    def where(self) -> str:
        """Like ``1F2``, or the word of a phase."""
        if self.at < 0:
            return Phase(self.at).word
        return str(self.actions[self.at]) if self.at < len(self.actions) else "its last messages"

    @property
    def pipeline(self) -> str:
        """Which of several pipelines it is in: ``replica 1`` of ``rank 0, replica 1``."""
        return self.name.partition(", ")[2]

    @property
    def stage(self) -> int | None:
        return self.actions[self.at].stage if 0 <= self.at < len(self.actions) else None

    @cached_property
    def index(self) -> dict[Action, int]:
        return {action: i for i, action in enumerate(self.actions)}

    def place(self) -> str:
        """Like ``stage 1, step 2, at 1F2``."""
        if self.at in BEFORE[:3]:
            return self.where
        if not self.actions:
            return f"step {self.step}"
        stage = f"stage {self.stage}, " if self.stage is not None else ""
        return f"{stage}step {self.step}, {'at ' if self.at >= 0 else ''}{self.where}"

    def last_actions(self) -> list[str]:
        """The last that it began, the latest at the end; those of the step before are not told."""
        return [str(action) for action in self.actions[max(0, self.at + 1 - NUM_LAST) : max(0, self.at + 1)]]


@dataclass(frozen=True)
class Wait:
    """``who`` (an index) needs ``what`` from ``whom``."""

    who: int
    whom: int
    what: str


def waits(statuses: Sequence[RankStatus]) -> dict[int, Wait]:
    """Who waits for whom, by who waits; those that wait for nobody are not in it."""
    found = {}
    for who, status in enumerate(statuses):
        if status.state == "running" and (wait := _wait(statuses, who)) is not None:
            found[who] = wait
    return found


def _wait(statuses: Sequence[RankStatus], who: int) -> Wait | None:
    status = statuses[who]
    if 0 <= status.at < len(status.actions):
        return _wait_for_message(statuses, who, status.actions[status.at])
    if status.at == Phase.JOIN or status.at == Phase.LEAVE or status.at == len(status.actions):
        behind = [i for i, other in enumerate(statuses) if other.position < status.position and other.actions]
        if behind:
            return Wait(who, min(behind, key=lambda i: statuses[i].position), status.where)
    return None


def _wait_for_message(statuses: Sequence[RankStatus], who: int, action: Action) -> Wait | None:
    if action.op in (Op.REDUCE_GRAD, Op.UNSHARD):
        return _wait_for_replica(statuses, who, action)
    if action.op not in NEEDS:
        return None
    receive, send, step = NEEDS[action.op]
    stage, mb = action.stage, action.microbatch
    own = [other for other in statuses[who].index if (other.stage, other.op, other.microbatch) == (stage, receive, mb)]
    for received in own:  # from the neighbour, and skips
        source = stage + step if received.peer is None else received.peer
        sent = Action(source, send, mb, (), None if received.peer is None else stage)
        for whom, other in enumerate(statuses):
            if sent not in other.index or other.pipeline != statuses[who].pipeline:
                continue
            unsent = other.position <= (statuses[who].step, other.index[sent])
            if unsent or other.is_away:
                return Wait(who, whom, str(received))
    return None


def _wait_for_replica(statuses: Sequence[RankStatus], who: int, action: Action) -> Wait | None:
    """The one furthest behind of those that add up their gradients with it."""
    behind = [
        i
        for i, other in enumerate(statuses)
        if action in other.index and (other.position < statuses[who].position or other.state == "stopped")
    ]
    return Wait(who, min(behind, key=lambda i: statuses[i].position), str(action)) if behind else None


def first_to_stall(statuses: Sequence[RankStatus]) -> int | None:
    """The process to blame for a silence: one that is halted or not heard of; else, of those that wait for nobody, the
    one furthest behind. None where all wait for each other."""
    left = [i for i, status in enumerate(statuses) if status.state == "running" or status.is_away]
    away = [i for i in left if statuses[i].is_away]
    waiting = waits(statuses)
    free = away or [i for i in left if i not in waiting]
    return min(free, key=lambda i: statuses[i].position) if free else None


def explain_stall(statuses: Sequence[RankStatus]) -> str:
    """Who is to blame, and who waits for whom, in one line."""
    waiting, first_failure = waits(statuses), first_to_stall(statuses)
    parts = []
    if first_failure is None:
        parts.append("all ranks wait for each other")
    else:
        one = statuses[first_failure]
        stands = f"is {one.state}" if one.is_away else "does not move"
        parts.append(f"{one.name} {stands} ({one.place()})")
    told = sorted(waiting.values(), key=lambda wait: (wait.whom != first_failure, wait.who))
    parts += [_tell(statuses, wait) for wait in told[:NUM_TOLD]]
    if len(told) > NUM_TOLD:
        parts.append(f"{len(told) - NUM_TOLD} more wait")
    return "; ".join(parts)


def _tell(statuses: Sequence[RankStatus], wait: Wait) -> str:
    one, other = statuses[wait.who], statuses[wait.whom]
    state = "is stopped" if other.state == "stopped" else "is not heard of" if other.is_away else "is"
    return (
        f"{one.name} waits at {wait.what} for {other.name}, which {state} "
        f"{'in ' if other.at >= 0 else ''}{other.where} for {other.seconds:.0f} s"
    )


def as_dict(statuses: Sequence[RankStatus]) -> list[dict[str, Any]]:
    """All of it, for a file."""
    waiting = waits(statuses)
    return [
        {
            "name": status.name,
            "state": status.state,
            "step": status.step,
            "stage": status.stage,
            "at": status.where,
            "seconds": round(status.seconds, 3),
            "waits_at": waiting[i].what if i in waiting else None,
            "waits_for": statuses[waiting[i].whom].name if i in waiting else None,
            "last_actions": status.last_actions(),
        }
        for i, status in enumerate(statuses)
    ]
