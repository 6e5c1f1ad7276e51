"""A process that has imported torch, composed a config and traced a model, and forks command lines: start-up paid.

    pytest ──spawn──> warm parent ──fork──> keeper ──fork──> the command ──> its ranks
              │                               │
              └── one connection a command ───┘  request; process id; exit code; who outlived it

What a command meets is what a new interpreter meets: its folder, its environment, ``sys.argv``, ``__main__``, default
signals. Processes that lose their parent become the keeper's, whatever session they are in, so none can hide.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.warm_up import wait_for_no_disk, warm_up

PR_SET_CHILD_SUBREAPER = 36
GRACE = 0.5  # seconds that what a command started has to end after it


def serve(path: str) -> None:
    """Take requests at a Unix socket until the process that started this one is gone. Returns in the commands."""
    from pipezoo.supervisor.processes import die_with_parent

    die_with_parent(os.getppid())
    warm_up()
    signal.signal(signal.SIGCHLD, lambda number, frame: bury())  # keepers
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("warm", flush=True)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            keep(connection)
            return
        connection.close()


def keep(connection: socket.socket) -> None:
    """Fork the command that is asked for, and tell how it ended. Returns in the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    lines = connection.makefile("rw")
    request = json.loads(lines.readline())
    command = os.fork()
    if command == 0:
        connection.close()
        lines.close()
        become(request)
        return
    tell(lines, command)
    code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    deadline = time.monotonic() + GRACE
    while (left := children()) and time.monotonic() < deadline:
        time.sleep(0.01)
    tell(lines, {"code": code, "left": left})
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    os._exit(0)


def tell(lines: Any, value: Any) -> None:
    lines.write(json.dumps(value) + "\n")
    lines.flush()


def bury() -> bool:
    """Take note of children that have ended; whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True


def children() -> dict[str, str]:
    """The command lines of this process's living children, by process id; those that have ended are buried."""
    if not bury():
        return {}
    own = f"/proc/self/task/{os.getpid()}/children"
    pids = Path(own).read_text().split() if os.path.exists(own) else ["0"]
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):  # it may end while we look
            found[pid] = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    return found


def become(request: dict[str, Any]) -> None:
    """Run ``python -m MODULE WORDS`` in this process, as a new interpreter would."""
    os.setsid()
    wait_for_no_disk()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, name in enumerate((os.devnull, request["out"], request["err"])):
        file = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, closefd=False)  # type: ignore[misc]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path[0] = request["cwd"]
    importlib.invalidate_caches()
    sys.argv = ["", *request["words"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(sys.argv[1])
