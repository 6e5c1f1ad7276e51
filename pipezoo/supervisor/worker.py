"""The life of a child process, from its first line to its last, and what it says of itself when it fails."""

from __future__ import annotations

import faulthandler
import io
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipezoo import errors
from pipezoo.supervisor.heap import keep_freed_memory
from pipezoo.supervisor.processes import die_with_parent, exit_now, let_signals_come
from pipezoo.supervisor.save_signal import ignore
from pipezoo.supervisor.worker_channel import HEARTBEAT, WorkerChannel

WORKER_LOG = "-----"  # opens each entry of the log that is not what a process printed
LOST = (  # what a process says that fell over another one's end
    "Connection closed",
    "Connection reset",
    "Pair is not connected",
    "Broken pipe",
    "Timed out waiting",
    "NCCL",
    "remote process",
)


def run_worker(
    target: Callable[[WorkerChannel], Any],
    line: socket.socket,
    heartbeats: Any,
    place: int,
    parent: int,
    log: str,
    name: str,
) -> None:
    """Run ``target`` as process ``name``, say what it returned or why it failed, and leave."""
    die_with_parent(parent)
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ignore()
    let_signals_come()
    channel = WorkerChannel(line, heartbeats, place)
    code, logged = errors.RankError.exit_code, False
    try:
        _print_to(log)
        logged = True
        result = target(channel)
        channel.send("done", result=result)
        code = 0
    except BaseException as error:
        title = f"\n{WORKER_LOG} {name}, step {heartbeats[place * HEARTBEAT + 1]}: failed\n"
        entry = title + "".join(traceback.format_exception(error))
        confession = serialize_error(error)
        code = confession["exit_code"]
        channel.send("error", **confession)
        if logged:
            os.write(2, entry.encode("utf-8", "backslashreplace"))  # in one piece: others write there too
    finally:
        exit_now(code)


def _print_to(log: str) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), line_buffering=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), line_buffering=True)
    faulthandler.enable(sys.stderr)
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1, sys.stderr)


def serialize_error(error: BaseException) -> dict[str, Any]:
    """What a failing process says of itself, in few words."""
    cause = error
    while cause.__cause__ is not None:  # torch wraps what a stage raised in a page of shapes
        cause = cause.__cause__
    lines = str(cause).strip().splitlines() or [""]
    kind, text, known = type(cause).__name__, lines[0][:500], isinstance(cause, errors.PipezooError)
    if (why := errors.no_room(cause)) is not None:
        kind, known = errors.OutputError.__name__, True
        text = f"{getattr(cause, 'filename', None) or 'a file of the run'}: cannot be written: {why}"
    elif isinstance(cause, SystemExit):
        kind, text = "SystemExit", f"something called sys.exit({text}) before its end"
    return {
        "type": kind,
        "text": text,
        "known": known,
        "exit_code": getattr(errors, kind).exit_code if known else errors.RankError.exit_code,
        "lost": not known and any(word in str(cause) for word in LOST),
        "at": time.monotonic(),
        "precedence": getattr(cause, "precedence", 0),
    }


def deserialize_error(confession: dict[str, Any], who: str, log: Path) -> errors.PipezooError:
    """The error that a process confessed, for the user. ``who``: the process and where it stood."""
    kind, text = confession["type"], confession["text"]
    if confession["known"]:
        known: type[errors.PipezooError] = getattr(errors, kind, errors.RankError)
        return known(text)
    what = text if kind == "SystemExit" else f"{kind}: {text}" if text else kind
    return errors.RankError(f"{who}: {what}; more in {log}")
