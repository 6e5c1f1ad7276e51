"""The work of a run's processes, done in this one: one after the other, without a supervisor.

A notebook runs threads, which no fork survives, and its classes are defined where no other process can import them.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipezoo.errors import PipezooError
from pipezoo.supervisor.handlers import Handlers
from pipezoo.supervisor.worker import WORKER_LOG, deserialize_error, serialize_error
from pipezoo.supervisor.worker_channel import HEARTBEAT, Phase, WorkerChannel


class DirectChannel(WorkerChannel):
    """A worker's channel to handlers in the same process: what it sends, they hear at once."""

    def __init__(self, name: str, handlers: Handlers) -> None:
        self._name, self._handlers, self.step = name, handlers, 0
        self._beats: Any = [0] * HEARTBEAT

    def send(self, kind: str, **content: Any) -> None:
        if kind == "step":
            self._handlers.step(self._name, content)
        elif kind == "saved":
            self._handlers.saved(self._name, content)

    def place(self) -> str:
        """Where it stands, in words."""
        _, step, action = self._beats[:3]
        return f"step {step}, {Phase(action).word}" if action < 0 else f"step {step}"


def run_in_this_process(
    targets: Mapping[str, Callable[[WorkerChannel], Any]], log: Path, handlers: Handlers
) -> dict[str, Any]:
    """Run each target here, and return what each returned.

    Raises:
        PipezooError: as a process of its own would have ended; the error itself is its cause.
    """
    results = {}
    for name, target in targets.items():
        channel = DirectChannel(name, handlers)
        try:
            results[name] = target(channel)
        except PipezooError:
            raise
        except Exception as error:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"\n{WORKER_LOG} {name}, {channel.place()}: failed\n")
                file.write("".join(traceback.format_exception(error)))
            told = deserialize_error(serialize_error(error), f"{name} ({channel.place()})", log)
            handlers.failure({"error": str(told), "exit_code": told.exit_code, "first_failure": name, "log": log.name})
            raise told from error
        finally:
            _leave_process_group()
    return results


def _leave_process_group() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
