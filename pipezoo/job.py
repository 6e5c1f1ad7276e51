"""One run, from its config to its exit code: claim the folder, write down what runs, run it, write down how it ended.

A run of a sweep is done in a process of its own, forked from one that has imported torch and computed nothing:

    sweep ──fork──> run 0 ──fork──> its ranks        what a run does to its process (sys.exit, a signal, a seed, a
          ──fork──> run 1 ──fork──> its ranks        thread pool) ends with it; the sweep reads how it ended from
          ...                                        result.json, and goes on
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import importlib.util
import math
import os
import pkgutil
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pipezoo.tasks
from pipezoo.errors import ConfigError, OutputError, PipezooError
from pipezoo.experiment import Experiment
from pipezoo.interrupt import interrupted
from pipezoo.report.folder import RESULT, claim, read_result, write_json, write_text
from pipezoo.report.printable import printable
from pipezoo.runtime.children import die_with_parent, leave
from pipezoo.spelling import unknown

DEFECT = 1  # exit code of an error that nobody foresaw
OUTPUT = "output.txt"  # what a run of a sweep would have printed
SHARED = ("pipezoo", "torch", "numpy", "multiprocessing", "jinja2", "networkx", "sympy")  # whose import leaks nothing
PIPE = 1 << 16  # bytes that a pipe takes without a reader
PATIENCE = 5.0  # seconds that a run of an interrupted sweep has to write down how it ended
STARTED = time.time()

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is to be run, and where.

    Args:
        load: makes the experiment; raises ConfigError.
        folder: of this run.
        files: what is written into the folder beforehand, by name: the config as composed.
        objective: the key of the result that a sweeper wants.
        debug: errors come with their traceback.
        warm: modules that the parent of a sweep's runs imports once for all of them.
    """

    load: Callable[[], Experiment]
    folder: Path
    files: Callable[[], Mapping[str, str]]
    objective: str = "step_seconds"
    debug: bool = False
    warm: tuple[str, ...] = ()


def run(request: Request, say: Say, claimed: bool = False) -> int:
    """Run in this process and return the exit code. Errors are printed and written down, never raised.

    Args:
        say: prints a line for people.
        claimed: the folder is this run's own already. Otherwise a config error leaves no folder behind.
    """
    try:
        experiment = request.load()
        task = task_of(experiment.task)
        if not claimed:
            _claim(request.folder)
            claimed = True
        for name, text in request.files().items():
            (request.folder / name).parent.mkdir(exist_ok=True)
            write_text(request.folder / name, text)
        gc.freeze()  # all that was imported stays
        gc.enable()
        task(experiment, request.folder, say)
        _write_page(request.folder)
    except BaseException as error:
        code, line = ending(error)
        if claimed and isinstance(error, KeyboardInterrupt):
            line += f"; what was reached is in {request.folder}"
        if request.debug or code == DEFECT:
            traceback.print_exception(error)
        print(line, file=sys.stderr, flush=True)
        if claimed:
            record(request.folder, code, line)
            if code != OutputError.exit_code:
                _write_page(request.folder)
        else:
            _leave_no_folder(request.folder)
        return code
    return 0


def _write_page(folder: Path) -> None:
    """``report.html``. It shows what the other files say, so a run without it has lost nothing."""
    from pipezoo.report.page import write_report

    try:
        write_report(folder)
    except Exception as error:
        print(f"warning: no report.html: {type(error).__name__}: {printable(str(error))}", file=sys.stderr)


def run_alone(request: Request, title: str, say: Say) -> float:
    """Run in a process of its own, say in one line how it went, and return its objective; NaN where it failed.

    Raises:
        OutputError: the folder is not to be had, so that nothing could be written down there.
    """
    began = time.monotonic()
    _claim(request.folder)
    status: int | None = None
    try:
        _warm_up(request.warm)
        status = _fork(lambda: run(request, print, claimed=True), request.folder / OUTPUT)
    finally:
        result = _settled(request.folder, status)
        code = result.get("exit_code")
        how = f"{result['status']} with exit code {code}" if code else result.get("verified") or result["status"]
        say(f"{title}  {how} after {time.monotonic() - began:.1f} s")
    return objective(result, request.objective)


def task_of(name: str) -> Callable[[Experiment, Path, Say], Mapping[str, Any]]:
    """The ``run`` of ``pipezoo/tasks/<name>.py``. Raises ConfigError where there is no such file."""
    names = [module.name for module in pkgutil.iter_modules(pipezoo.tasks.__path__)]
    if name not in names:
        raise ConfigError(f"task={name}: {unknown('task', name, names)}")
    run: Callable[[Experiment, Path, Say], Mapping[str, Any]] = importlib.import_module(f"pipezoo.tasks.{name}").run
    return run


def ending(error: BaseException) -> tuple[int, str]:
    """The exit code of an error, and its one line."""
    text = printable(re.sub(r"[^\S ]+|[\x00-\x1f\x7f-\x9f]", " ", str(error)).strip())
    if isinstance(error, KeyboardInterrupt):
        return interrupted(error)
    if isinstance(error, PipezooError):
        return error.exit_code, f"error: {text}"
    if isinstance(error, SystemExit):
        return DEFECT, f"error: something in this run called sys.exit({text}) before its end"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return OutputError.exit_code, f"error: {error.filename or 'a file'}: cannot be written: {error.strerror}"
    return DEFECT, f"error: {type(error).__name__}: {text}"


def record(folder: Path, code: int, line: str) -> None:
    """Write down in ``result.json`` that the run ended with ``code``; what the run wrote there itself stays."""
    result = _read(folder)
    result["status"] = "interrupted" if code in (130, 143) else "failed"
    result["exit_code"] = code
    result["error"] = line.removeprefix("error: ")
    with contextlib.suppress(OutputError, OSError):  # a full disk was the error, or it hides the one that was
        write_json(folder / RESULT, result)


def objective(result: Mapping[str, Any], path: str) -> float:
    """The number that ``path`` leads to in a result; of several (median, min, max) the median. NaN where none is."""
    value: Any = None if result.get("exit_code") else result
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping):
        value = value.get("median")
    return float(value) if isinstance(value, (int, float)) else math.nan


def sweep_exit_code(folder: Path) -> int:
    """The worst exit code of the runs in a sweep's folder; never 0 when one of them failed or left no result."""
    codes = [0]
    for run_folder in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        results = sorted(run_folder.rglob(RESULT))
        codes += [_code(_read(result.parent)) for result in results] or [DEFECT]
    return max(codes)


def _claim(folder: Path) -> None:
    """Take a folder. One whose run was refused for its config never held a run, and is free."""
    if _read(folder).get("exit_code") == ConfigError.exit_code:
        (folder / RESULT).unlink(missing_ok=True)
    claim(folder)


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
            leave(code)
    os.close(teach)
    try:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        _warm_up(tuple(os.read(learned, PIPE).decode().split("\n")[:-1]))  # the last may have been cut
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
    result = _read(folder)
    if result.get("status") in (None, "running"):
        if status is None:
            record(folder, 130, "interrupted")
        elif status < 0:
            record(folder, 4, f"the run was killed by {signal.Signals(-status).name}")
        else:
            record(folder, status or DEFECT, f"the run left with exit code {status} before its end")
        result = _read(folder)
    return {"status": "failed", **result}


def _warm_up(modules: tuple[str, ...]) -> None:
    """Import what every run needs, without collecting garbage that is none, and keep the children off its pages."""
    if all(module in sys.modules for module in modules):
        return
    gc.disable()
    for module in modules:
        with contextlib.suppress(ImportError):  # an alias that its package put there
            importlib.import_module(module)
    gc.freeze()
    gc.enable()


def _leave_no_folder(folder: Path) -> None:
    """Remove the folder that was made for a run that did not come to be, and its day's, if nothing is in them."""
    with contextlib.suppress(OSError):
        if folder.stat().st_mtime >= STARTED - 1.0:
            folder.rmdir()
            if re.fullmatch(r"\d{4}-\d\d-\d\d", folder.parent.name):
                folder.parent.rmdir()


def _code(result: Mapping[str, Any]) -> int:
    failed = result.get("status") in (None, "running", "failed", "interrupted")
    return int(result.get("exit_code") or (DEFECT if failed else 0))


def _read(folder: Path) -> dict[str, Any]:
    try:
        return dict(read_result(folder))
    except (OSError, ValueError, PipezooError):
        return {}
