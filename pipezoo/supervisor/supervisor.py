"""Starting the processes of a run, and watching them until the last has said that it is done.

    parent ──┬── rank 0 ──socket──┐     a message per step, and one when all is done
             ├── rank 1 ──socket──┤──>  parent: what each said, who left without a word,
             └── rank 2 ──socket──┘     and whether anybody moved lately (one shared page, beaten before each action)

A child is forked from a parent that has imported torch and computed nothing with more than one thread, dies with it,
and leaves with ``os._exit``. Exit code 0 is not trusted: only the word *done* is. The first first failure is told from
those that fell over it: it was the first, and did not just lose a connection.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import selectors
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipezoo import errors
from pipezoo.schedule.action import Action
from pipezoo.supervisor.garbage import frozen
from pipezoo.supervisor.handlers import NO_HANDLERS
from pipezoo.supervisor.handlers import Handlers as Handlers
from pipezoo.supervisor.stall_diagnosis import RankStatus, as_dict, explain_stall, first_to_stall
from pipezoo.supervisor.start_deadline import end_deadline
from pipezoo.supervisor.this_process import run_in_this_process
from pipezoo.supervisor.worker import deserialize_error
from pipezoo.supervisor.worker_channel import HEARTBEAT, WorkerChannel
from pipezoo.supervisor.workers import Worker, end, start

PAUSE = 0.005  # seconds in which messages gather: waking up for each one would take a core from the ranks
LOOK = 0.1  # seconds between two looks at the page
TELL = 0.25  # seconds between two of them that others hear of
AHEAD = 0.5  # seconds in which all ranks hear that a checkpoint is wanted
GATHER = 0.3  # seconds in which the others' follow-up errors arrive after the first one
GRACE = 0.5  # seconds between SIGTERM and SIGKILL
STACKS = 0.3  # seconds that all processes together have to write down their stacks


@dataclass(frozen=True)
class Limits:
    """Seconds in which nobody moves after which a run is given up: until the first step is done, and later on."""

    first_step: float
    step: float


def launch(
    targets: Mapping[str, Callable[[WorkerChannel], Any]],
    limits: Limits,
    log: Path,
    actions: Mapping[str, Sequence[Action]] | None = None,
    handlers: Handlers = NO_HANDLERS,
    start_method: str = "fork",
    remote: Mapping[str, Worker] = MappingProxyType({}),
) -> dict[str, Any]:
    """Run each target in a process of its own, and return what each returned.

    Args:
        targets: by the name that errors call them, like ``rank 1``; picklable where they are spawned. What they return
            must be of None, numbers, strings, lists and dicts.
        log: what the processes print goes there, and their stacks when the run fails.
        actions: what those of them that are ranks execute in a step.
        start_method: ``fork``, ``spawn``, or ``here`` for no process of its own at all.
        remote: those of the names that run elsewhere already, and are watched like the others.

    Raises:
        PipezooError: of the first process that failed, with its exit code, when all are gone.
    """
    end_deadline()
    if start_method == "here":
        return run_in_this_process(targets, log, handlers)
    context = multiprocessing.get_context(start_method)
    heartbeats = context.RawArray("q", HEARTBEAT * len(targets))
    workers: list[Worker] = []
    with frozen():
        try:
            for place, (name, target) in enumerate(targets.items()):
                own = (actions or {}).get(name, ())
                workers.append(remote.get(name) or start(context, name, target, heartbeats, place, log, own))
            _watch(workers, limits, log, handlers)
        finally:
            end(workers, GRACE)
    return {worker.name: worker.result for worker in workers}


def _watch(workers: Sequence[Worker], limits: Limits, log: Path, handlers: Handlers) -> None:
    """Listen until all are done. Raises for the first failure."""
    watchdog, looked = Watchdog(workers, limits), time.monotonic()
    began = looked
    try:
        with selectors.DefaultSelector() as selector:
            for worker in workers:
                selector.register(worker.fileno(), selectors.EVENT_READ, worker)
            while not all(worker.over for worker in workers):
                time.sleep(PAUSE)
                _listen(selector, workers, LOOK, handlers)
                if any(worker.over and not worker.done for worker in workers):
                    _gather(selector, workers, handlers)
                    break
                watchdog.look()
                _ask_for_checkpoint(workers, handlers, time.monotonic() - began)
                if handlers.look is not None and time.monotonic() - looked >= TELL:
                    looked = time.monotonic()
                    handlers.look(_statuses(workers))
                if not log.parent.exists():  # ranks that meet there would wait for each other
                    raise errors.OutputError(f"{log.parent}: was moved or deleted while the run wrote there")
        if first_failure := _first_failure(workers):
            raise _explain(first_failure, _statuses(workers), workers, log)
    except BaseException as error:
        _report(error, workers, log, handlers)
        raise


def _ask_for_checkpoint(workers: Sequence[Worker], handlers: Handlers, seconds: float) -> None:
    """All ranks write it after the same step, which none of them has come to when it hears of it. Where one has, its
    part is missing, and it is no checkpoint."""
    steps_ahead = 2 + int(AHEAD * max(worker.steps for worker in workers) / max(seconds, AHEAD))
    steps = handlers.save_at(max(int(worker.beats[1]) for worker in workers) + steps_ahead)
    if steps is not None:
        for worker in workers:
            worker.save_after(steps)


def _listen(selector: selectors.BaseSelector, workers: Sequence[Worker], timeout: float, handlers: Handlers) -> None:
    """Take in what has arrived within ``timeout``, and notice who is gone."""
    heard = [(key.data, key.fd) for key, _ in selector.select(timeout)]
    for worker in [worker for worker, _ in heard] or [one for one in workers if not one.over and one.is_gone()]:
        for message in worker.messages():
            _handle(worker, message, handlers)
        if not worker.open:
            worker.gone_at = worker.gone_at or time.monotonic()
            _forget(selector, worker)


def _forget(selector: selectors.BaseSelector, worker: Worker) -> None:
    """Wait for it no more; its line may be closed already."""
    for key in [key for key in selector.get_map().values() if key.data is worker]:
        selector.unregister(key.fd)


def _gather(selector: selectors.BaseSelector, workers: Sequence[Worker], handlers: Handlers) -> None:
    """Give those that fell over the first failure the time to say so."""
    until = time.monotonic() + GATHER
    while not all(worker.over for worker in workers) and (left := until - time.monotonic()) > 0:
        _listen(selector, workers, min(left, 0.02), handlers)


def _handle(worker: Worker, message: dict[str, Any], handlers: Handlers) -> None:
    kind = message.pop("kind")
    if kind == "step":
        worker.steps += 1
        handlers.step(worker.name, message)
    elif kind == "saved":
        handlers.saved(worker.name, message)
    elif kind == "done":
        worker.done, worker.result = True, message["result"]
    elif kind == "error":
        worker.error = message


class Watchdog:
    """For how long nobody has moved. Time in which we did not look ourselves (Ctrl-Z, a suspended machine) does not
    count."""

    def __init__(self, workers: Sequence[Worker], limits: Limits) -> None:
        self._children, self._limits = workers, limits
        self._latest, self._looked, self._quiet = 0, time.monotonic(), 0.0

    def look(self) -> None:
        """Raises NoProgressError when it lasts for too long."""
        latest = max(worker.beats[0] for worker in self._children)
        now = time.monotonic()
        self._quiet = 0.0 if latest != self._latest else self._quiet + min(now - self._looked, 5 * LOOK)
        self._latest, self._looked = latest, now
        first = any(worker.steps == 0 for worker in self._children if not worker.done)
        limit, key = (self._limits.first_step, "first_step_timeout") if first else (self._limits.step, "step_timeout")
        if self._quiet > limit:
            statuses = _statuses(self._children)
            raise errors.NoProgressError(f"nobody moved for launch.{key}={limit:g} s: {explain_stall(statuses)}")


def _statuses(workers: Sequence[Worker]) -> list[RankStatus]:
    return [worker.status() for worker in workers]


def _first_failure(workers: Sequence[Worker]) -> Worker | None:
    """The earliest to fail or to die without a word. A lost connection is the fault of somebody else, if there is one;
    of several that saw the same (a NaN that went round), the one with the smallest precedence is nearest to it."""
    failed = [worker for worker in workers if worker.over and not worker.done]
    own = [worker for worker in failed if not (worker.error and worker.error["lost"])]

    def order(worker: Worker) -> tuple[int, float]:
        return (worker.error["precedence"], worker.error["at"]) if worker.error else (0, worker.gone_at)

    return min(own or failed, key=order, default=None)


def _explain(
    worker: Worker, statuses: Sequence[RankStatus], workers: Sequence[Worker], log: Path
) -> errors.PipezooError:
    status = statuses[workers.index(worker)]
    if worker.error is None:
        return errors.RankError(f"{worker.name} {status.state} ({status.place()})")
    return deserialize_error(worker.error, f"{worker.name} ({status.place()})", log)


def _report(error: BaseException, workers: Sequence[Worker], log: Path, handlers: Handlers) -> None:
    """Write down where everybody stands, before it is all over."""
    statuses = _statuses(workers)
    first_failure = _first_failure(workers)
    silent = first_to_stall(statuses) if isinstance(error, errors.NoProgressError) else None
    ranks = as_dict(statuses)
    for rank, worker in zip(ranks, workers, strict=True):
        rank |= {"pid": worker.pid, "error": worker.error and {k: worker.error[k] for k in ("type", "text")}}
    if not isinstance(error, KeyboardInterrupt):
        _dump_stacks(workers, statuses, log)
    report = {
        "error": str(error) or type(error).__name__,
        "exit_code": getattr(error, "exit_code", None),
        "first_failure": first_failure.name if first_failure else statuses[silent].name if silent is not None else None,
        "log": log.name,
        "processes": ranks,
    }
    with contextlib.suppress(OSError, errors.OutputError):  # a full disk may be the error
        handlers.failure(report)


def _dump_stacks(workers: Sequence[Worker], statuses: Sequence[RankStatus], log: Path) -> None:
    """One process after the other, so that each stack is whole in the log."""
    until = time.monotonic() + STACKS
    for worker, status in zip(workers, statuses, strict=True):
        if status.state == "running" and time.monotonic() <= until:
            with contextlib.suppress(OSError):
                worker.dump_stack(log, f"{worker.name}, {status.place()}: where it stands", until)
