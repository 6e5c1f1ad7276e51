"""A world of processes that a test starts by hand, as torchrun would: forked from the warm parent, and so cheap."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.command_line import Ended, Warm, WarmParent


@dataclass
class StartedWorld:
    """The processes of one command, rank by rank."""

    processes: list[Warm]

    def wait(self, timeout: float = 60.0) -> list[Ended]:
        return [process.wait(timeout) for process in self.processes]


World = Callable[..., StartedWorld]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_world(
    parent: WarmParent, environment: dict[str, str], cwd: Path, words: tuple[str, ...], size: int, **more: str
) -> StartedWorld:
    """``size`` processes that all run ``python -m pipezoo words...``.

    Args:
        more: further variables of their environment.
    """
    port = more.pop("MASTER_PORT", "") or str(free_port())
    processes = []
    for rank in range(size):
        world = {
            "RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        processes.append(parent.start("pipezoo", words, cwd, environment | world | more))
    return StartedWorld(processes)
