"""The trackers of a run, in a process of their own: their libraries run threads, beside which nothing can be forked.

this process    {"step": 3, "values": {"loss": 2.5, ...}}  ──► socket ──►  trackers.step(3, {...})
                never waits: what the socket does not take is kept         import wandb, tensorboard, ...
                "tracker wandb failed: ..."                ◄── socket ◄──  the others go on, and so does the run
"""

from __future__ import annotations

import importlib.util
import io
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipezoo.errors import ConfigError, first_line
from pipezoo.experiment.component import Component
from pipezoo.supervisor.processes import die_with_parent, exit_now, let_signals_come, signals_held, unsafe_to_fork

LOG = "trackers.log"  # what their libraries print
NOTHING = "pipezoo.trackers.files.files"
PATIENCE = 60.0  # seconds that trackers have to finish after the last step


def check_trackers(trackers: Sequence[Component]) -> None:
    """Refuse those whose library is not there. Imports none of them; raises ConfigError."""
    for component in trackers:
        component.check_values()
        needs = getattr(component.function, "needs", None)
        if needs is not None and importlib.util.find_spec(needs) is None:
            raise ConfigError(f"tracker={component.choice}: needs the package {needs}: pip install 'pipezoo[{needs}]'")


class Trackers:
    """The link to their process."""

    def __init__(self, line: socket.socket, process: Any, tell: Callable[[str], None]) -> None:
        self._line, self._process, self._tell = line, process, tell
        self._pending, self._heard = bytearray(), bytearray()
        line.setblocking(False)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """A step has ended."""
        self._send({"step": step, "values": dict(values)})

    def end(self, result: Mapping[str, Any]) -> None:
        """The run has ended; wait for them to finish."""
        self._send({"end": dict(result)})
        until = time.monotonic() + PATIENCE
        while self._process.is_alive() and time.monotonic() < until:
            self._flush()
            self._listen()
            self._process.join(0.02)
        self._listen()

    def close(self) -> None:
        """Without them, whatever they do."""
        with suppress(OSError):
            self._line.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def _send(self, message: Mapping[str, Any]) -> None:
        self._pending += json.dumps(message, default=str).encode() + b"\n"
        self._flush()
        self._listen()

    def _flush(self) -> None:
        with suppress(OSError):
            while self._pending:
                del self._pending[: self._line.send(self._pending[: 1 << 16])]

    def _listen(self) -> None:
        with suppress(OSError):
            while piece := self._line.recv(1 << 16):
                self._heard += piece
        while b"\n" in self._heard:
            text, _, self._heard = self._heard.partition(b"\n")
            self._tell(text.decode(errors="replace"))


@contextmanager
def tracking(
    trackers: Sequence[Component], folder: Path, config: Mapping[str, Any], tell: Callable[[str], None]
) -> Iterator[Trackers | None]:
    """Start them; None where there is nothing to track. ``tell``: is called with a line about one that failed."""
    asked = [component for component in trackers if component.target != NOTHING]
    if not asked:
        yield None
        return
    context: Any = multiprocessing.get_context("spawn" if unsafe_to_fork() else "fork")
    ours, theirs = socket.socketpair()
    arguments = (asked, str(folder), dict(config), theirs, os.getpid())
    process = context.Process(target=_run, args=arguments, name="the trackers", daemon=False)
    with signals_held():
        process.start()
    theirs.close()
    link = Trackers(ours, process, tell)
    try:
        yield link
    finally:
        link.close()


def _run(asked: Sequence[Component], folder: str, config: dict[str, Any], line: socket.socket, parent: int) -> None:
    """The process of the trackers."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent closes the line
    let_signals_come()
    with suppress(OSError):
        log = os.open(f"{folder}/{LOG}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
    for number, name in ((1, "stdout"), (2, "stderr")):
        setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "w", closefd=False), line_buffering=True))
    alive: dict[str, Any] = {}
    try:
        for component in asked:
            given = {"folder": folder, "config": config}
            with _blamed(component.choice, alive, line):
                alive[component.choice] = component(**{k: v for k, v in given.items() if component.takes(k)})
        with line.makefile("r", encoding="utf-8") as lines:
            for text in lines:
                message = json.loads(text)
                for name in list(alive):
                    with _blamed(name, alive, line):
                        _hand_over(alive[name], message)
                if "end" in message:
                    break
    finally:
        exit_now(0)


def _hand_over(tracker: Any, message: Mapping[str, Any]) -> None:
    if "end" in message:
        if callable(end := getattr(tracker, "end", None)):
            end(message["end"])
    elif callable(step := getattr(tracker, "step", None)):
        step(message["step"], message["values"])


@contextmanager
def _blamed(name: str, alive: dict[str, Any], line: socket.socket) -> Iterator[None]:
    """What one tracker raises ends it alone, and is said."""
    try:
        yield
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        alive.pop(name, None)
        with suppress(OSError):
            line.sendall(f"{name} failed: {first_line(error)}".replace("\n", " ").encode() + b"\n")
