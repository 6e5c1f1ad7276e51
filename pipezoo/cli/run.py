"""One run, from its settings to its exit code: claim the folder, write down what runs, run it, say how it ended."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import platform
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipezoo.cli.signals import begin, check, clear_away_with, interrupted
from pipezoo.config.resolve import WITH_MODEL, ResolvedConfig, build, check_components
from pipezoo.config.used_by import notes
from pipezoo.errors import ConfigError, OutputError, PipezooError, RankError, no_room
from pipezoo.experiment.experiment import Experiment
from pipezoo.experiment.foreign_code import foreign_code
from pipezoo.installed import version
from pipezoo.results.committed import write_gitignore
from pipezoo.results.run_dir import FAILURE, REPORT, RESULT, claim, read_result, write_json, write_text
from pipezoo.results.sanitize import linked, printable
from pipezoo.supervisor.garbage import resume_collection
from pipezoo.supervisor.processes import signals_held
from pipezoo.supervisor.start_deadline import begin_deadline, end_deadline
from pipezoo.tasks.terminal import PrintLine

DEFECT = 1  # exit code of an error that nobody foresaw
TOO_FEW = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)

Task = Callable[[Experiment, Path, PrintLine], Mapping[str, Any]]
OVERRIDES = ".hydra/overrides.yaml"  # what was typed


@dataclass(frozen=True)
class Request:
    """What is to be run, and where: plain values, so that one process may ask another for it.

    Args:
        resolved: what the config says, or why it says nothing that could be run.
        folder: of this run.
        files: what is written into the folder beforehand as YAML, by name: the config as composed, in plain values.
        title: what tells a run of a sweep from the others.
        sweep: the folder of the sweep that it is one of.
        goes_on: the sweep was begun before, and what is done stays.
        notes: what a person may have meant otherwise, a line each.
        since: when it was asked for, in seconds of ``time.time``; the folder was made just before.
    """

    resolved: ResolvedConfig | ConfigError
    folder: Path
    files: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    sweep: Path | None = None
    goes_on: bool = False
    notes: tuple[str, ...] = ()
    since: float = field(default_factory=time.time)

    @property
    def values(self) -> Mapping[str, Any]:
        return {} if isinstance(self.resolved, ConfigError) else self.resolved.values

    @property
    def objective(self) -> str:
        """The key of the result that a sweeper wants."""
        return str(self.values.get("objective", "step_seconds"))

    def experiment(self) -> Experiment:
        """Raises ConfigError, before torch is imported where that can be."""
        if isinstance(self.resolved, ConfigError):
            raise self.resolved
        return build(self.resolved)

    def hide(self, text: str) -> str:
        """``text`` without what came from the environment."""
        return text if isinstance(self.resolved, ConfigError) else self.resolved.hide(text)


def run(request: Request, print_line: PrintLine, claimed: bool = False) -> int:
    """Run in this process and return the exit code. Errors are printed and written down, never raised.

    Args:
        print_line: prints a line for people.
        claimed: the folder is this run's own already. Otherwise a config error leaves no folder behind.
    """
    with _kept_warnings() as kept:
        code = _run(request, print_line, claimed)
    for line in kept if code == 0 or request.values.get("debug") is True else ():
        print(line, file=sys.stderr)
    return code


def _run(request: Request, print_line: PrintLine, claimed: bool) -> int:
    try:
        if claimed:
            write_files(request)
        else:
            clear_away_with(partial(_leave_no_folder, request))
        experiment = request.experiment()
        print_line(_header(experiment.task))
        if experiment.task in WITH_MODEL:
            begin_deadline(experiment.launch.start_timeout)
        else:
            end_deadline()  # it starts no process
        check_components(experiment)
        task = task_of(experiment.task)
        check()  # an import may have caught what a signal raised
        if not claimed:
            begin()
            with signals_held():  # a folder that is taken is one of which it is known
                take(request.folder)
                claimed = True
            write_files(request)
        for line in (*request.notes, *notes(request.files.get(OVERRIDES, ()), experiment)):
            print_line(line)
        resume_collection()
        if theirs := foreign_code(experiment):
            print_line(f"trusted   {'; '.join(theirs)}")
        task(experiment, request.folder, print_line)
        if _write_page(request.folder):
            print_line(f"report    {_page_of(request.folder)}")
    except BaseException as error:
        late = end_deadline()  # its exception may have been taken for an error of what was built
        if isinstance(error, Exception):
            error = late or error
            if claimed and not request.folder.is_dir():  # whatever fell over that
                error = OutputError(f"{request.folder}: was moved or deleted while the run wrote there")
        code, line = ending(error)
        line = request.hide(line)
        if claimed and isinstance(error, KeyboardInterrupt):
            line += f"; what was reached is in {request.folder}"
        if request.values.get("debug") is True or code == DEFECT:
            traceback.print_exception(error)
        print(line, file=sys.stderr, flush=True)
        if claimed:
            record(request.folder, code, line)
            if code != OutputError.exit_code and _write_page(request.folder):
                print_line(f"report    {_page_of(request.folder)}{_more(request.folder)}")
        else:
            _leave_no_folder(request)
        return code
    return 0


@contextlib.contextmanager
def _kept_warnings() -> Iterator[list[str]]:
    """What libraries warn of in this process while the block lasts, kept for the end: an error is one line."""
    show, owner, kept = warnings.showwarning, os.getpid(), list[str]()

    def keep(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
        if os.getpid() == owner:
            kept.append(warnings.formatwarning(message, category, filename, lineno).rstrip())
        else:
            show(message, category, filename, lineno, *rest)

    warnings.showwarning = keep  # type: ignore[assignment]
    try:
        yield kept
    finally:
        warnings.showwarning = show


def _header(task: str) -> str:
    """The first line, before anything large is imported: versions, as the installed packages say them."""
    torch = f"torch {metadata.version('torch')}, " if task in WITH_MODEL else ""
    return f"pipezoo   {version()}, {torch}Python {platform.python_version()}"


def _short(path: Path) -> Path:
    """As it is typed from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _page_of(folder: Path) -> str:
    return linked(printable(_short(folder / REPORT)), folder / REPORT)


def _more(folder: Path) -> str:
    return f"; where each rank stood is in {FAILURE}" if (folder / FAILURE).is_file() else ""


def _write_page(folder: Path) -> bool:
    """``report.html``. It shows what the other files say, so a run without it has lost nothing."""
    from pipezoo.report.html import write_report

    try:
        write_report(folder)
        return True
    except Exception as error:
        print(f"warning: no report.html: {type(error).__name__}: {printable(str(error))}", file=sys.stderr)
        return False


def write_files(request: Request) -> None:
    """Write down what runs. Raises OutputError."""
    for name, content in request.files.items():
        (request.folder / name).parent.mkdir(exist_ok=True)
        write_text(request.folder / name, to_yaml(content))


def to_yaml(content: Any) -> str:
    """Plain values as YAML, in their own order."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(content, Dumper=dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)
    return text


def task_of(name: str) -> Task:
    """The function that does a task; its imports are made here, torch's for a task that trains."""
    return {"train": _train, "verify": _verify, "simulate": _simulate, "plan": _plan}[name]()


def _train() -> Task:
    from pipezoo.tasks.train import run

    return run


def _verify() -> Task:
    from pipezoo.tasks.verify import run

    return run


def _simulate() -> Task:
    from pipezoo.tasks.simulate import run

    return run


def _plan() -> Task:
    from pipezoo.tasks.plan import run

    return run


def ending(error: BaseException) -> tuple[int, str]:
    """The exit code of an error, and its one line."""
    text = printable(re.sub(r"[^\S ]+|[\x00-\x1f\x7f-\x9f]", " ", str(error)).strip())
    if isinstance(error, KeyboardInterrupt):
        return interrupted(error)
    if isinstance(error, PipezooError):
        return error.exit_code, f"error: {text}"
    if isinstance(error, SystemExit):
        return ConfigError.exit_code, f"error: something in this run called sys.exit({text}) before its end"
    if (why := no_room(error)) is not None:
        return OutputError.exit_code, f"error: {getattr(error, 'filename', None) or 'a file'}: cannot be written: {why}"
    if isinstance(error, OSError) and error.errno in TOO_FEW:
        return RankError.exit_code, f"error: this system gives no more processes, files or memory: {error.strerror}"
    return DEFECT, f"error: {type(error).__name__}: {text}"


def record(folder: Path, code: int, line: str) -> None:
    """Write down in ``result.json`` that the run ended with ``code``; what the run wrote there itself stays."""
    result = result_of(folder)
    result["status"] = "interrupted" if code in (130, 143) else "failed"
    result["exit_code"] = code
    result["error"] = line.removeprefix("error: ")
    try:
        write_json(folder / RESULT, result)
    except (OutputError, OSError):  # a full disk was the error, or it hides the one that was
        with contextlib.suppress(OSError):
            _write_over(folder / RESULT, {key: result[key] for key in ("status", "exit_code", "error")})


def _write_over(path: Path, content: Mapping[str, Any]) -> None:
    """Write into the room that a file has already, where there is none for a new one."""
    text = json.dumps(content).encode()
    with path.open("rb+") as file:
        file.write(text)
        file.truncate()


def objective(result: Mapping[str, Any], path: str) -> float:
    """The number that ``path`` leads to in a result; of several (median, min, max) the median. NaN where none is.

    ``losses.-1`` is the last entry of a list.
    """
    value: Any = None if result.get("exit_code") else result
    for key in path.split("."):
        if isinstance(value, list):
            place = int(key) if re.fullmatch(r"-?\d{1,9}", key) else len(value)
            value = value[place] if -len(value) <= place < len(value) else None
        else:
            value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping):
        value = value.get("median")
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def take(folder: Path) -> None:
    """Make a folder this run's own. One whose run was refused for its config never held a run, and is free.

    Raises:
        OutputError: it holds a run, or cannot be written.
    """
    if result_of(folder).get("exit_code") == ConfigError.exit_code:
        (folder / RESULT).unlink(missing_ok=True)
    claim(folder)
    write_gitignore(folder)


def _leave_no_folder(request: Request) -> None:
    """Remove the folder that was made for a run that did not come to be, and its day's, if nothing is in them."""
    folder = request.folder
    with contextlib.suppress(OSError):
        if folder.stat().st_mtime >= request.since - 1.0:
            folder.rmdir()
            if re.fullmatch(r"\d{4}-\d\d-\d\d", folder.parent.name):
                folder.parent.rmdir()


def result_of(folder: Path) -> dict[str, Any]:
    """``result.json`` of a folder; empty where there is none that can be read."""
    try:
        return dict(read_result(folder))
    except (OSError, ValueError, PipezooError):
        return {}
