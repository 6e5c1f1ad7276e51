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
from typing import Any, NoReturn

from pipezoo.cli.folder_lock import locked
from pipezoo.cli.outcome import DEFECT, objective, record, result_of
from pipezoo.cli.request import Request
from pipezoo.cli.resume import done_already, takes_what_applies
from pipezoo.cli.run import run, take
from pipezoo.cli.signals import begin, check
from pipezoo.cli.streams import forgiving
from pipezoo.config.resolve import WITH_MODEL
from pipezoo.errors import ConfigError, NoProgressError, OutputError, PipezooError, RankError
from pipezoo.report.template import compile_templates
from pipezoo.results.run_dir import RESULT, write_json
from pipezoo.results.sanitize import printable
from pipezoo.results.sweep_table import DOES_NOT_APPLY
from pipezoo.supervisor.garbage import pause_collection, resume_collection
from pipezoo.supervisor.processes import die_with_parent, exit_now, is_stopped, let_signals_come, signals_held
from pipezoo.tasks.terminal import PrintLine

OUTPUT = "output.txt"  # what a run of a sweep would have printed
OF_A_MODEL = ("pipezoo.tasks.train", "pipezoo.executors.native")  # what a run with a model imports, torch and all
SHARED = ("pipezoo", "torch", "numpy", "multiprocessing", "jinja2", "networkx", "sympy")  # whose import leaks nothing
PIPE = 1 << 16  # bytes that a pipe takes without a reader
LOOK = 0.05  # seconds between two looks at the process of a run
PATIENCE_OF_NONE = 60.0  # seconds that it may be halted where launch.step_timeout is none
SAID: set[tuple[Path | None, str]] = set()  # why runs failed, by sweep: each reason is told once
PATIENCE = 5.0  # seconds that a run of an interrupted sweep has to write down how it ended


def run_in_worker(request: Request, print_line: PrintLine) -> float:
    """Run in a process of its own, say in one line how it went, and return its objective; NaN where it failed.

    Raises:
        OutputError: the folder is not to be had, so that nothing could be written down there.
        SweepRefused: going on with the sweep would mix it up with another.
    """
    if (kept := done_already(request, print_line)) is not None:
        print_line(f"{request.title}  kept: {_how(kept, request.sweep)}")
        return objective(kept, request.objective)
    began = time.monotonic()
    begin()
    status: int | PipezooError | None = None
    taken, result = False, dict[str, Any]()
    try:
        with signals_held():
            take(request.folder)
            taken = True
        with locked(request.folder):
            warm_up(imports_of(request))
            check()  # an import may have caught what a signal raised
            compile_templates()
            status = _fork(lambda: run(request, print, claimed=True), request.folder / OUTPUT, _patience(request))
    except (NoProgressError, RankError) as error:
        status = error
    finally:
        if taken:
            result = _settled(request, status)
            print_line(f"{request.title}  {_how(result, request.sweep)} after {time.monotonic() - began:.1f} s")
    return objective(result, request.objective)


def _how(result: Mapping[str, Any], sweep: Path | None) -> str:
    """How a run ended, in a word or two; why it failed, where no run of the sweep failed so before."""
    code = result.get("exit_code")
    if not code:
        return str(result.get("verified") or result["status"])
    status = str(result["status"])
    how = status if status == DOES_NOT_APPLY else f"{status} with exit code {code}"
    why = str(result.get("error") or "")
    if not why or (sweep, why) in SAID:
        return how
    SAID.add((sweep, why))
    return f"{how} ({printable(why)})"


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


def _fork(work: Callable[[], int], output: Path, patience: float) -> int:
    """Run ``work`` in a child whose output goes to a file; its exit code, or minus the signal that killed it.

    What the child had to import of :data:`SHARED`, the next one finds imported.

    Raises:
        NoProgressError: the child was halted for ``patience`` seconds. It is killed.
        RankError: it could not be started.
    """
    parent, before = os.getpid(), set(sys.modules)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        learned, teach = os.pipe()
        with signals_held():
            child = os.fork()
            if child == 0:
                os.close(learned)
                _be_the_child(work, output, parent, before, teach)
    except OSError as error:
        raise RankError(f"the run could not be started: {error.strerror or error}") from error
    os.close(teach)
    try:
        status = _wait(child, patience)
        warm_up(tuple(os.read(learned, PIPE).decode().split("\n")[:-1]))  # the last may have been cut
        return status
    except BaseException:
        _end(child)
        raise
    finally:
        os.close(learned)


def _be_the_child(work: Callable[[], int], output: Path, parent: int, before: set[str], teach: int) -> NoReturn:
    code = DEFECT
    try:
        die_with_parent(parent)
        let_signals_come()
        _redirect(output)
        code = work()
        os.write(teach, "".join(f"{name}\n" for name in _shared(set(sys.modules) - before)).encode()[:PIPE])
    except BaseException:
        traceback.print_exc()
    finally:
        exit_now(code)


def _wait(child: int, patience: float) -> int:
    """How the child ended, as ``os.waitstatus_to_exitcode`` says it. A halt of this process is not counted."""
    halted, looked, pause = 0.0, time.monotonic(), 0.002
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        check()
        now = time.monotonic()
        halted = halted + min(now - looked, 5 * LOOK) if is_stopped(child) else 0.0
        if halted > patience:
            raise NoProgressError(f"nobody moved for launch.step_timeout={patience:g} s: the run's process is stopped")
        looked = now
        time.sleep(pause)
        pause = min(2 * pause, LOOK)


def _shared(modules: Iterable[str]) -> list[str]:
    return sorted(module for module in modules if module.partition(".")[0] in SHARED)


def _redirect(output: Path) -> None:
    """Send what this process and its children print to ``output``."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = forgiving(1), forgiving(2)


def _end(child: int) -> None:
    """Give the child of an interrupted sweep a moment to write down how it ended; one that is halted cannot."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        try:
            os.kill(child, signal.SIGTERM)
            deadline = time.monotonic() + PATIENCE
            while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < deadline and not is_stopped(child):
                time.sleep(0.02)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _patience(request: Request) -> float:
    """Seconds for which the process of a run may be halted."""
    options = request.values.get("launch")
    value = options.get("step_timeout") if isinstance(options, Mapping) else None
    return float(value) if isinstance(value, (int, float)) and value > 0 else PATIENCE_OF_NONE


def _settled(request: Request, status: int | PipezooError | None) -> dict[str, Any]:
    """The result of a run whose process is gone; where it could not write it down itself, we do."""
    folder = request.folder
    result = result_of(folder)
    if result.get("status") in (None, "running"):
        if status is None:
            record(folder, 130, "interrupted")
        elif isinstance(status, PipezooError):
            record(folder, status.exit_code, str(status))
        elif status < 0:
            record(folder, 4, f"the run was killed by {signal.Signals(-status).name}")
        else:
            record(folder, status or DEFECT, f"the run left with exit code {status} before its end")
        result = result_of(folder)
    if result.get("exit_code") == ConfigError.exit_code and request.sweep and takes_what_applies(request.sweep):
        result["status"] = DOES_NOT_APPLY
        with contextlib.suppress(OutputError):
            write_json(folder / RESULT, result)
    return {"status": "failed", **result}
