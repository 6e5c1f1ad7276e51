"""What a run does with what it hears from its processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipezoo.supervisor.stall_diagnosis import RankStatus

OnMessage = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Handlers:
    """What a run does with what it hears from its processes.

    Args:
        step: called with each process's message about a step.
        saved: called with each process's message about its part of a checkpoint.
        look: called a few times a second with where every process stands.
        save_at: called a few times a second with the steps after which all can still write a checkpoint; after how
            many they are to write one, no fewer than these; None: nobody wants one.
        failure: called with what is known about a failure, before it is raised: JSON.
    """

    step: OnMessage = lambda name, message: None
    saved: OnMessage = lambda name, message: None
    look: Callable[[Sequence[RankStatus]], None] | None = None
    save_at: Callable[[int], int | None] = lambda earliest: None
    failure: Callable[[dict[str, Any]], None] = lambda report: None


NO_HANDLERS = Handlers()
