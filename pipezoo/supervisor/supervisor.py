"""Starting the processes of a run, and watching them until the last has said that it is done.

    parent ──┬── rank 0 ──socket──┐     a message per step, and one when all is done
             ├── rank 1 ──socket──┤──>  parent: what each said, who left without a word,
             └── rank 2 ──socket──┘     and whether anybody moved lately (one shared page, beaten before each action)

A child is forked from a parent that has imported torch and computed nothing with more than one thread, dies with it,
and leaves with ``os._exit``. Exit code 0 is not trusted: only the word *done* is. The first culprit is told from
those that fell over it: it was the first, and did not just lose a connection.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipezoo import errors
from pipezoo.schedule.action import Action
from pipezoo.supervisor.processes import death, is_stopped
from pipezoo.supervisor.stall_diagnosis import Standing, as_dict, culprit, explain_silence
from pipezoo.supervisor.worker import CHILD_LOG, confessed, run_child
from pipezoo.supervisor.worker_channel import BEAT, Inbox, Link

LOOK = 0.1  # seconds between two looks at the page
GATHER = 0.3  # seconds in which the others' follow-up errors arrive after the first one
GRACE = 0.5  # seconds between SIGTERM and SIGKILL
STACKS = 0.3  # seconds that all processes together have to write down their stacks

Hear = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Limits:
    """Seconds in which nobody moves after which a run is given up: until the first step is done, and later on."""

    first_step: float
    step: float


@dataclass(frozen=True)
class Handlers:
    """What a run does with what it hears from its processes.

    Args:
        step: called with each process's message about a step.
        saved: called with each process's message about its part of a checkpoint.
        failure: called with what is known about a failure, before it is raised: JSON.
    """

    step: Hear = lambda name, message: None
    saved: Hear = lambda name, message: None
    failure: Callable[[dict[str, Any]], None] = lambda report: None


class Child:
    """One process, as the parent sees it."""

    def __init__(self, name: str, process: Any, inbox: Inbox, actions: Sequence[Action]) -> None:
        self.name, self.process, self.inbox, self.actions = name, process, inbox, actions
        self.done = False
        self.result: Any = None
        self.error: dict[str, Any] | None = None
        self.steps = 0
        self.gone_at = 0.0  # seconds of time.monotonic at which its line was found closed

    @property
    def over(self) -> bool:
        """Whether it said its last word, or will say none any more."""
        return self.done or self.error is not None or not self.inbox.open

    def state(self) -> str:
        if self.done:
            return "done"
        if self.error is not None:
            return "failed"
        if not self.inbox.open:
            self.process.join(1.0)
            return death(self.process.exitcode)
        return "stopped" if is_stopped(self.process.pid) else "running"


def launch(
    targets: Mapping[str, Callable[[Link], Any]],
    limits: Limits,
    log: Path,
    actions: Mapping[str, Sequence[Action]] | None = None,
    handlers: Handlers = Handlers(),
    start_method: str = "fork",
) -> dict[str, Any]:
    """Run each target in a process of its own, and return what each returned.

    Args:
        targets: by the name that errors call them, like ``rank 1``; picklable where they are spawned. What they return
            must be of None, numbers, strings, lists and dicts.
        log: what the processes print goes there, and their stacks when the run fails.
        actions: what those of them that are ranks execute in a step.

    Raises:
        PipezooError: of the first process that failed, with its exit code, when all are gone.
    """
    context = multiprocessing.get_context(start_method)
    beats = context.RawArray("q", BEAT * len(targets))
    children: list[Child] = []
    gc.freeze()  # what the parent has allocated is not touched, so not copied, by the children's collections
    try:
        for place, (name, target) in enumerate(targets.items()):
            children.append(_start(context, name, target, beats, place, log, (actions or {}).get(name, ())))
        _watch(children, beats, limits, log, handlers)
    finally:
        _end(children)
        gc.unfreeze()
    return {child.name: child.result for child in children}


def _start(
    context: Any, name: str, target: Callable[[Link], Any], beats: Any, place: int, log: Path, actions: Sequence[Action]
) -> Child:
    ours, theirs = socket.socketpair()
    arguments = (target, theirs, beats, place, os.getpid(), str(log), name)
    process = context.Process(target=run_child, args=arguments, name=name, daemon=False)
    beats[place * BEAT : place * BEAT + BEAT] = (time.monotonic_ns(), 0, -1)
    try:
        process.start()
    except OSError as error:
        ours.close()
        raise errors.RankError(f"{name} could not be started: {error.strerror or error}") from error
    finally:
        theirs.close()
    return Child(name, process, Inbox(ours), actions)


def _watch(children: Sequence[Child], beats: Any, limits: Limits, log: Path, handlers: Handlers) -> None:
    """Listen until all are done. Raises for the first culprit."""
    silence = Silence(children, beats, limits)
    try:
        with selectors.DefaultSelector() as selector:
            for child in children:
                selector.register(child.inbox.line, selectors.EVENT_READ, child)
            while not all(child.over for child in children):
                _listen(selector, children, LOOK, handlers)
                if any(child.over and not child.done for child in children):
                    _gather(selector, children, handlers)
                    break
                silence.look()
        if blamed := _first_culprit(children):
            raise _explain(blamed, _standings(children, beats), children, log)
    except BaseException as error:
        _report(error, children, beats, log, handlers)
        raise


def _listen(selector: selectors.BaseSelector, children: Sequence[Child], timeout: float, handlers: Handlers) -> None:
    """Take in what has arrived within ``timeout``, and notice who is gone."""
    heard = [key.data for key, _ in selector.select(timeout)]
    for child in heard or [child for child in children if not child.over and child.process.exitcode is not None]:
        gone = child.process.exitcode is not None  # asked first: what it said before it went is read after
        for message in child.inbox.messages():
            _hear(child, message, handlers)
        child.inbox.open &= not gone  # a process of its own may hold its line open
        if not child.inbox.open:
            child.gone_at = child.gone_at or time.monotonic()
            with contextlib.suppress(KeyError):
                selector.unregister(child.inbox.line)


def _gather(selector: selectors.BaseSelector, children: Sequence[Child], handlers: Handlers) -> None:
    """Give those that fell over the first failure the time to say so."""
    until = time.monotonic() + GATHER
    while not all(child.over for child in children) and (left := until - time.monotonic()) > 0:
        _listen(selector, children, min(left, 0.02), handlers)


def _hear(child: Child, message: dict[str, Any], handlers: Handlers) -> None:
    kind = message.pop("kind")
    if kind == "step":
        child.steps += 1
        handlers.step(child.name, message)
    elif kind == "saved":
        handlers.saved(child.name, message)
    elif kind == "done":
        child.done, child.result = True, message["result"]
    elif kind == "error":
        child.error = message


class Silence:
    """For how long nobody has moved. Time in which we did not look ourselves (Ctrl-Z, a suspended machine) does not
    count."""

    def __init__(self, children: Sequence[Child], beats: Any, limits: Limits) -> None:
        self._children, self._beats, self._limits = children, beats, limits
        self._latest, self._looked, self._quiet = 0, time.monotonic(), 0.0

    def look(self) -> None:
        """Raises NoProgressError when it lasts for too long."""
        latest = max(self._beats[place * BEAT] for place in range(len(self._children)))
        now = time.monotonic()
        self._quiet = 0.0 if latest != self._latest else self._quiet + min(now - self._looked, 5 * LOOK)
        self._latest, self._looked = latest, now
        first = any(child.steps == 0 for child in self._children if not child.done)
        limit, key = (self._limits.first_step, "first_step_timeout") if first else (self._limits.step, "step_timeout")
        if self._quiet > limit:
            standings = _standings(self._children, self._beats)
            raise errors.NoProgressError(f"nobody moved for launch.{key}={limit:g} s: {explain_silence(standings)}")


def _standings(children: Sequence[Child], beats: Any) -> list[Standing]:
    now = time.monotonic()
    found = []
    for place, child in enumerate(children):
        nanoseconds, step, at = beats[place * BEAT : place * BEAT + BEAT]
        found.append(Standing(child.name, child.actions, step, at, now - nanoseconds / 1e9, child.state()))
    return found


def _first_culprit(children: Sequence[Child]) -> Child | None:
    """The earliest to fail or to die without a word; a lost connection is the fault of somebody else, if there is
    one."""
    failed = [child for child in children if child.over and not child.done]
    own = [child for child in failed if not (child.error and child.error["lost"])]
    return min(own or failed, key=lambda child: child.error["at"] if child.error else child.gone_at, default=None)


def _explain(child: Child, standings: Sequence[Standing], children: Sequence[Child], log: Path) -> errors.PipezooError:
    standing = standings[children.index(child)]
    if child.error is None:
        return errors.RankError(f"{child.name} {standing.state} ({standing.place()})")
    return confessed(child.error, f"{child.name} ({standing.place()})", log)


def _report(error: BaseException, children: Sequence[Child], beats: Any, log: Path, handlers: Handlers) -> None:
    """Write down where everybody stands, before it is all over."""
    standings = _standings(children, beats)
    blamed = _first_culprit(children)
    silent = culprit(standings) if isinstance(error, errors.NoProgressError) else None
    ranks = as_dict(standings)
    for rank, child in zip(ranks, children, strict=True):
        rank |= {"pid": child.process.pid, "error": child.error and {k: child.error[k] for k in ("type", "text")}}
    if not isinstance(error, KeyboardInterrupt):
        _dump_stacks(children, standings, log)
    report = {
        "error": str(error) or type(error).__name__,
        "exit_code": getattr(error, "exit_code", None),
        "culprit": blamed.name if blamed else standings[silent].name if silent is not None else None,
        "log": log.name,
        "processes": ranks,
    }
    with contextlib.suppress(OSError, errors.OutputError):  # a full disk may be the error
        handlers.failure(report)


def _dump_stacks(children: Sequence[Child], standings: Sequence[Standing], log: Path) -> None:
    """One process after the other, so that each stack is whole in the log."""
    if not hasattr(signal, "SIGUSR1"):
        return
    until = time.monotonic() + STACKS
    for child, standing in zip(children, standings, strict=True):
        if standing.state != "running" or time.monotonic() > until:
            continue
        with contextlib.suppress(OSError):
            with log.open("a", encoding="utf-8") as file:
                file.write(f"\n{CHILD_LOG} {child.name}, {standing.place()}: where it stands\n")
                size = file.tell()
            os.kill(child.process.pid, signal.SIGUSR1)
            while log.stat().st_size == size and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(0.003)


def _end(children: Sequence[Child]) -> None:
    """Leave no process behind: those that are done have a moment to go, the others are asked, then killed."""
    try:
        for child in children:
            if not child.done and child.process.exitcode is None:
                child.process.terminate()
        until = time.monotonic() + (1.0 if all(child.done for child in children) else GRACE)
        for child in children:
            if not is_stopped(child.process.pid):
                child.process.join(max(0.0, until - time.monotonic()))
    finally:  # a second Ctrl-C comes here at once
        for child in children:
            if child.process.exitcode is None:
                child.process.kill()
        for child in children:
            child.process.join(5.0)
            child.inbox.line.close()
            with contextlib.suppress(ValueError):  # it cannot even be killed: it waits for a disk that is gone
                child.process.close()
