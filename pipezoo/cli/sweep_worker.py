"""A run of a sweep, in a process of its own, forked from one that has imported torch and computed nothing.

sweep ──fork──> run 0 ──fork──> its ranks        what a run does to its process (sys.exit, a signal, a seed, a
      ──fork──> run 1 ──fork──> its ranks        thread pool) ends with it; the sweep reads how it ended from
      ...                                        result.json, and goes on
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pipezoo.cli.folder_lock import locked
from pipezoo.cli.resume import done_already
from pipezoo.cli.run import DEFECT, Request, objective, record, result_of, run, take
from pipezoo.config.resolve import WITH_MODEL
from pipezoo.errors import ConfigError
from pipezoo.report.html import compile_templates
from pipezoo.supervisor.garbage import pause_collection, resume_collection
from pipezoo.supervisor.processes import die_with_parent, exit_now
from pipezoo.tasks.terminal import PrintLine

OUTPUT = "output.txt"  # what a run of a sweep would have printed
OF_A_MODEL = ("pipezoo.tasks.train", "pipezoo.executors.native")  # what a run with a model imports, torch and all
SHARED = ("pipezoo", "torch", "numpy", "multiprocessing", "jinja2", "networkx", "sympy")  # whose import leaks nothing
PIPE = 1 << 16  # bytes that a pipe takes without a reader
PATIENCE = 5.0  # seconds that a run of an interrupted sweep has to write down how it ended


def run_in_worker(request: Request, print_line: PrintLine) -> float:
    """Run in a process of its own, say in one line how it went, and return its objective; NaN where it failed.

    Raises:
        OutputError: the folder is not to be had, so that nothing could be written down there.
        SweepRefused: going on with the sweep would mix it up with another.
    """
    if (result := done_already(request, print_line)) is not None:
        print_line(f"{request.title}  kept: {_how(result)}")
        return objective(result, request.objective)
    began = time.monotonic()
    take(request.folder)
    status: int | None = None
    with locked(request.folder):
        try:
            warm_up(imports_of(request))
            compile_templates()
            status = _fork(lambda: run(request, print, claimed=True), request.folder / OUTPUT)
        finally:
            result = _settled(request.folder, status)
            print_line(f"{request.title}  {_how(result)} after {time.monotonic() - began:.1f} s")
    return objective(result, request.objective)


def _how(result: Mapping[str, Any]) -> str:
    """How a run ended, in a word or two."""
    if code := result.get("exit_code"):
        return f"{result['status']} with exit code {code}"
    return str(result.get("verified") or result["status"])


def imports_of(request: Request) -> tuple[str, ...]:
    """The modules that a run will import, so that the parent of several imports them once."""
    resolved = request.resolved
    if isinstance(resolved, ConfigError) or resolved.task not in WITH_MODEL:
        return ()
    return OF_A_MODEL


def warm_up(modules: tuple[str, ...]) -> None:
    """Import what every run needs, without collecting garbage that is none, and keep the children off its pages."""
    if all(module in sys.modules for module in modules):
        return
    pause_collection()
    for module in modules:
        with contextlib.suppress(ImportError):  # an alias that its package put there
            importlib.import_module(module)
    resume_collection()


def _fork(work: Callable[[], int], output: Path) -> int:
    """Run ``work`` in a child whose output goes to a file; its exit code, or minus the signal that killed it.

    What the child had to import of :data:`SHARED`, the next one finds imported.
    """
    if not hasattr(os, "fork"):
        return work()
    parent, before = os.getpid(), set(sys.modules)
    learned, teach = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = DEFECT
        try:
            os.close(learned)
            die_with_parent(parent)
            _redirect(output)
            code = work()
            os.write(teach, "".join(f"{name}\n" for name in _shared(set(sys.modules) - before)).encode()[:PIPE])
        except BaseException:
            traceback.print_exc()
        finally:
            exit_now(code)
    os.close(teach)
    try:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        warm_up(tuple(os.read(learned, PIPE).decode().split("\n")[:-1]))  # the last may have been cut
        return status
    except BaseException:
        _end(child)
        raise
    finally:
        os.close(learned)


def _shared(modules: Iterable[str]) -> list[str]:
    return sorted(module for module in modules if module.partition(".")[0] in SHARED)


def _redirect(output: Path) -> None:
    """Send what this process and its children print to ``output``."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))


def _end(child: int) -> None:
    """Give the child of an interrupted sweep a moment to write down how it ended."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        try:
            os.kill(child, signal.SIGTERM)
            deadline = time.monotonic() + PATIENCE
            while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _settled(folder: Path, status: int | None) -> dict[str, Any]:
    """The result of a run whose process is gone; where it could not write it down itself, we do."""
    result = result_of(folder)
    if result.get("status") in (None, "running"):
        if status is None:
            record(folder, 130, "interrupted")
        elif status < 0:
            record(folder, 4, f"the run was killed by {signal.Signals(-status).name}")
        else:
            record(folder, status or DEFECT, f"the run left with exit code {status} before its end")
        result = result_of(folder)
    return {"status": "failed", **result}
