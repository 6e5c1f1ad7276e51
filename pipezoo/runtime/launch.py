"""Starting the processes of a run, and watching them until the last has said that it is done.

    parent ── fork ──┬── rank 0 ──pipe──┐     a message per step, and one when all is done
                     ├── rank 1 ──pipe──┤──>  parent: what each said, who left without a word, └── rank 2 ──pipe──┘
                     and who has not moved for too long (one shared page, beaten before each action)

A child is forked from a parent that has imported torch and computed nothing with more than one thread, dies with it,
and leaves with ``os._exit``. Exit code 0 is not trusted: only the word *done* is. The first culprit is told from
those that fell over it: an error of its own comes before a lost connection.
"""

from __future__ import annotations

import faulthandler
import gc
import io
import mmap
import multiprocessing
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

from pipezoo import errors
from pipezoo.runtime.children import die_with_parent, leave

BEAT = struct.Struct("qqq")  # nanoseconds of time.monotonic, step, index of the action
GATHER = 0.3  # seconds in which the others' follow-up errors arrive after the first one
LOST = (
    "Connection closed",
    "Connection reset",
    "Pair is not connected",
    "Broken pipe",
    "Timed out waiting",
    "NCCL",
    "remote process",
)


class Link:
    """A child's line to its parent."""

    def __init__(self, pipe: connection.Connection, beats: mmap.mmap, place: int) -> None:
        self._pipe, self._beats, self._at, self._step = pipe, beats, place * BEAT.size, 0
        self.note(-1)

    def note(self, action: int) -> None:
        """Say that this process is alive, and before which action."""
        BEAT.pack_into(self._beats, self._at, time.monotonic_ns(), self._step, action)

    def begin_step(self, step: int) -> None:
        self._step = step
        self.note(-1)

    def end_step(self, step: int, began: float, ended: float, losses: list[float] | None) -> None:
        """``began`` and ``ended`` in seconds of ``time.perf_counter``, which all processes of a machine share."""
        self.note(-2)
        self.send("step", step=step, began=began, ended=ended, losses=losses)

    def send(self, kind: str, **content: Any) -> None:
        self._pipe.send((kind, content))


@dataclass
class Child:
    """One process, as the parent sees it."""

    name: str
    process: Any
    pipe: connection.Connection
    beats: mmap.mmap
    place: int
    done: bool = False
    result: Any = None
    error: dict[str, Any] | None = None
    open: bool = True
    steps: int = 0
    moved: float = field(default_factory=time.monotonic)

    def beat(self) -> tuple[float, int, int]:
        """When it last moved (``time.monotonic``), in which step, before which action."""
        nanoseconds, step, action = BEAT.unpack_from(self.beats, self.place * BEAT.size)
        return nanoseconds / 1e9, step, action

    def is_stopped(self) -> bool:
        try:
            return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
        except OSError:
            return False


@dataclass(frozen=True)
class Limits:
    """Seconds without progress after which a run is given up: until the first step is done, and for each later one."""

    first_step: float
    step: float


def launch(
    targets: dict[str, Callable[[Link], Any]],
    limits: Limits,
    log: Path,
    describe: Callable[[str, int], str] = lambda name, action: "",
    on_step: Callable[[str, dict[str, Any]], None] = lambda name, message: None,
) -> dict[str, Any]:
    """Run each target in a process of its own, and return what each returned.

    Args:
        targets: by the name that errors call them, like ``rank 1``.
        log: what the processes print goes there.
        describe: names the action with an index, like ``1F2``, for the error of a rank that stopped there.
        on_step: called with each step message of each process.

    Raises:
        PipezooError: of the first process that failed, with its exit code, when all are gone.
    """
    context = multiprocessing.get_context("fork")
    page = mmap.mmap(-1, max(mmap.PAGESIZE, BEAT.size * len(targets)))
    children: list[Child] = []
    gc.collect()
    gc.freeze()  # what the parent has allocated is not touched, so not copied, by the children's collections
    try:
        for place, (name, target) in enumerate(targets.items()):
            reader, writer = context.Pipe(duplex=False)
            arguments = (target, writer, page, place, os.getpid(), log, name)
            process = context.Process(target=_child, args=arguments, name=name, daemon=False)
            process.start()  # type: ignore[attr-defined]
            writer.close()
            children.append(Child(name, process, reader, page, place))
        _watch(children, limits, describe, on_step)
    finally:
        _end(children)
        gc.unfreeze()
    return {child.name: child.result for child in children}


def _child(
    target: Callable[[Link], Any],
    pipe: connection.Connection,
    page: mmap.mmap,
    place: int,
    parent: int,
    log: Path,
    name: str,
) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), line_buffering=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), line_buffering=True)
    faulthandler.enable(sys.stderr)
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1, sys.stderr)
    link = Link(pipe, page, place)
    code = 1
    try:
        result = target(link)
        link.send("done", result=result)
        code = 0
    except BaseException as error:
        traceback.print_exc()
        code = getattr(error, "exit_code", errors.RankError.exit_code)
        link.send("error", **_confession(error, page, place))
    finally:
        leave(code)


def _confession(error: BaseException, page: mmap.mmap, place: int) -> dict[str, Any]:
    """What a failing process says of itself: small enough to arrive whole."""
    cause = error
    while cause.__cause__ is not None:  # torch wraps what a stage raised in a page of shapes
        cause = cause.__cause__
    lines = str(cause).strip().splitlines() or [""]
    known = isinstance(cause, errors.PipezooError)
    return {
        "type": type(cause).__name__,
        "text": lines[0][:500],
        "known": known,
        "exit_code": cause.exit_code if isinstance(cause, errors.PipezooError) else errors.RankError.exit_code,
        "lost": not known and any(word in str(cause) for word in LOST),
        "at": time.monotonic(),
        "beat": BEAT.unpack_from(page, place * BEAT.size),
    }


def _watch(
    children: Sequence[Child],
    limits: Limits,
    describe: Callable[[str, int], str],
    on_step: Callable[[str, dict[str, Any]], None],
) -> None:
    """Read what the children say until all are done; raise for the first culprit."""
    failed_at: float | None = None
    while any(child.open for child in children):
        sources = [child.pipe for child in children if child.open]
        for pipe in connection.wait(sources, timeout=0.1 if failed_at is None else 0.02):
            _hear(next(child for child in children if child.pipe is pipe), on_step)
        now = time.monotonic()
        if failed_at is None and any(child.error or (not child.open and not child.done) for child in children):
            failed_at = now
        if failed_at is not None and now - failed_at > GATHER:
            break
        if failed_at is None and (late := _late(children, limits, now)) is not None:
            raise errors.NoProgressError(_explain_silence(children, late, now, describe))
    if culprit := _culprit(children):
        raise _explain(culprit, describe)


def _hear(child: Child, on_step: Callable[[str, dict[str, Any]], None]) -> None:
    try:
        kind, content = child.pipe.recv()
    except (EOFError, OSError):
        child.open = False
        return
    if kind == "step":
        child.steps, child.moved = content["step"] + 1, time.monotonic()
        on_step(child.name, content)
    elif kind == "done":
        child.done, child.result = True, content["result"]
    elif kind == "error":
        child.error = content


def _late(children: Sequence[Child], limits: Limits, now: float) -> float | None:
    """The limit that was passed, when no process has ended a step for longer than it."""
    waiting = [child for child in children if child.open and not child.done]
    if not waiting:
        return None
    first = any(child.steps == 0 for child in waiting)
    limit = limits.first_step if first else limits.step
    return limit if now - max(child.moved for child in children) > limit else None


def _culprit(children: Sequence[Child]) -> Child | None:
    """An error of its own before a death without a word, before a lost connection; the earliest of its kind."""
    own = [child for child in children if child.error and not child.error["lost"]]
    silent = [child for child in children if not child.done and not child.error]
    lost = [child for child in children if child.error and child.error["lost"]]
    for kind in (own, silent, lost):
        if kind:
            return min(kind, key=lambda child: child.error["at"] if child.error else 0.0)
    return None


def _explain(child: Child, describe: Callable[[str, int], str]) -> errors.PipezooError:
    _, step, action = child.beat()
    place = f"{child.name}, step {step}{describe(child.name, action)}"
    if child.error is None:
        child.process.join(1.0)
        return errors.RankError(
            f"{child.name} {_death(child.process.exitcode)} (step {step}{describe(child.name, action)})"
        )
    text = child.error["text"]
    if child.error["known"]:
        kind: type[errors.PipezooError] = getattr(errors, child.error["type"], errors.RankError)
        return kind(text)
    what = child.error["type"]
    return errors.RankError(f"{place}: {what}: {text}" if text else f"{place}: {what}")


def _death(code: int | None) -> str:
    if code is None:
        return "closed its line without a word"
    if code < 0:
        name = signal.Signals(-code).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"left early with exit code {code}"


def _explain_silence(children: Sequence[Child], limit: float, now: float, describe: Callable[[str, int], str]) -> str:
    """Who stands where; the one to blame is stopped, or the one that is not itself waiting: it moved last."""
    for child in children:
        if child.open and hasattr(signal, "SIGUSR1") and not child.is_stopped():
            os.kill(child.process.pid, signal.SIGUSR1)  # its stacks go to the log
    time.sleep(0.2)
    places = []
    for child in children:
        if child.done:
            continue
        moved, step, action = child.beat()
        state = "is stopped" if child.is_stopped() else "stands"
        places.append(f"{child.name} {state} in step {step}{describe(child.name, action)} for {now - moved:.0f} s")
    return f"no step ended for {limit:g} s: " + "; ".join(places)


def _end(children: Sequence[Child]) -> None:
    """Leave no process behind: those that are done have a second to go, all others none."""
    deadline = time.monotonic() + 1.0
    for child in children:
        if child.done:
            child.process.join(max(0.0, deadline - time.monotonic()))
        if child.process.is_alive():
            child.process.kill()
    for child in children:
        child.process.join()
        child.pipe.close()
        child.process.close()
