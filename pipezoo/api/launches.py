"""How the ranks of a run that was asked for in Python become processes, and why so.

a script, no threads           processes, forked
threads run (a notebook)       processes, spawned, where all that they need can be sent to them and imported there
... and it cannot (a lambda,   virtual ranks in this process
    a class of the notebook)
"""

from __future__ import annotations

import io
import pickle
import sys
import types
from dataclasses import dataclass
from typing import Any

from pipezoo.errors import ConfigError
from pipezoo.launch import Processes, Virtual
from pipezoo.launch.launch import Launch
from pipezoo.launch.this_process import ThisProcess
from pipezoo.supervisor.processes import unsafe_to_fork
from pipezoo.validators import unknown

WORDS = ("auto", "processes", "virtual")
IN_A_GROUP = "this process has joined a process group of torch.distributed"


@dataclass(frozen=True)
class Chosen:
    """A launch, its name in the results, and why it is this one: "" where it was asked for."""

    launch: Launch
    name: str
    why: str


def choose(asked: str | Launch, sent: object, threads: int | None = None) -> Chosen:
    """The launch that is asked for, as it can be had here.

    Args:
        asked: ``auto``, ``processes``, ``virtual``, or a launch of ``pipezoo.launch``.
        sent: what a spawned process would need.

    Raises:
        ConfigError: it cannot be had, or is no launch.
    """
    if not isinstance(asked, str):
        return Chosen(asked, type(asked).__name__.lower(), "")
    if asked not in WORDS:
        raise ConfigError(f"launch={asked}: {unknown('launch', asked, WORDS)}")
    no_fork = unsafe_to_fork() or (IN_A_GROUP if _in_a_group() else "")
    if asked == "virtual":
        return _virtual(no_fork, threads) if no_fork else Chosen(Virtual(threads), "virtual", "")
    if not no_fork:
        return Chosen(Processes(threads), "processes", "")
    if not (no_spawn := cannot_be_sent(sent)):
        return Chosen(Processes(threads, "spawn"), "processes", f"spawned: {no_fork}")
    if asked == "processes":
        raise ConfigError(f"launch=processes: {no_fork}, so none can be forked, and {no_spawn}; valid: virtual, auto")
    return _virtual(f"{no_fork}, and {no_spawn}", threads)


def _virtual(why: str, threads: int | None) -> Chosen:
    if _in_a_group():
        room = "" if why.startswith(IN_A_GROUP) else f", and {IN_A_GROUP}"
        raise ConfigError(f"launch=virtual: {why}{room}; valid: destroy_process_group() before")
    return Chosen(ThisProcess(threads), "virtual", f"in this process: {why}")


def _in_a_group() -> bool:
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def cannot_be_sent(thing: object) -> str:
    """Why a process that starts from nothing could not be given ``thing``; "" where it can."""
    try:
        _Sender(_Nowhere()).dump(thing)
    except Exception as error:  # whatever an object's own __reduce__ raises
        return " ".join(str(error).split())[:200] or type(error).__name__
    return ""


class _Sender(pickle.Pickler):
    """Refuses what only this interactive session knows."""

    def reducer_override(self, value: Any) -> Any:
        named = isinstance(value, (type, types.FunctionType)) and value.__module__ == "__main__"
        if named and not hasattr(sys.modules["__main__"], "__file__"):
            raise pickle.PicklingError(
                f"{value.__qualname__} is defined in this session, where no other process finds it"
            )
        return NotImplemented


class _Nowhere(io.RawIOBase):
    def write(self, data: Any) -> int:
        return memoryview(data).nbytes
