"""One run, from its settings to its exit code: claim the folder, write down what runs, run it, say how it ended."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipezoo.cli.attempts import Attempts, begun_before, conclude, go_on, note_first, said
from pipezoo.cli.outcome import DEFECT, ending, record, result_of
from pipezoo.cli.request import OVERRIDES, Request
from pipezoo.cli.signals import begin, check, clear_away_with
from pipezoo.cli.submit import submit
from pipezoo.cli.world import check_launch, for_the_world, tell_the_world
from pipezoo.config.resolve import WITH_MODEL, check_components
from pipezoo.config.used_by import notes
from pipezoo.errors import ConfigError, OutputError
from pipezoo.experiment.experiment import Experiment
from pipezoo.experiment.foreign_code import foreign_code
from pipezoo.installed import version
from pipezoo.results.committed import write_gitignore
from pipezoo.results.run_dir import FAILURE, REPORT, RESULT, claim, write_text
from pipezoo.results.sanitize import linked, printable
from pipezoo.supervisor.garbage import resume_collection
from pipezoo.supervisor.processes import signals_held
from pipezoo.supervisor.start_deadline import begin_deadline, end_deadline
from pipezoo.supervisor.world_host import Host, hosted
from pipezoo.tasks.terminal import PrintLine

Task = Callable[[Experiment, Path, PrintLine], Mapping[str, Any]]


def run(request: Request, print_line: PrintLine, claimed: bool = False) -> int:
    """Run in this process and return the exit code. Errors are printed and written down, never raised.

    Args:
        print_line: prints a line for people.
        claimed: the folder is this run's own already. Otherwise a config error leaves no folder behind.
    """
    with _kept_warnings() as kept:
        code = _Run(request, print_line, claimed).code()
    for line in kept if code == 0 or request.values.get("debug") is True else ():
        print(line, file=sys.stderr)
    return code


class _Run:
    """A run on its way: what it knows and has claimed so far, which is what its end has to write down or remove."""

    def __init__(self, request: Request, print_line: PrintLine, claimed: bool) -> None:
        self._request, self._print_line, self._claimed = request, print_line, claimed
        self._attempts: Attempts | None = None

    def code(self) -> int:
        try:
            return self._perform()
        except BaseException as error:
            return self._ended(error)

    def _perform(self) -> int:
        if self._claimed:
            write_files(self._request)
        else:
            clear_away_with(partial(_leave_no_folder, self._request))
        if (host := hosted()) is not None:
            self._request = for_the_world(self._request, host)
        experiment = self._request.experiment()
        submitted = experiment.task == "train" and experiment.launch.submits
        task = self._checked(experiment, host, says_what=not submitted)
        if submitted:
            begin()
            return submit(self._request, experiment, self._print_line)
        if not self._claimed:
            experiment = self._claim(experiment, host)
        self._introduce(experiment, host)
        task(experiment, self._request.folder, self._print_line)
        if self._attempts is not None:
            conclude(self._attempts, 0)
        self._report()
        return 0

    def _checked(self, experiment: Experiment, host: Host | None, says_what: bool) -> Task:
        """The function that does the task of an experiment that can be run. Raises ConfigError."""
        if experiment.task in WITH_MODEL:
            check_launch(experiment, host)
        if says_what:
            self._print_line(_header(experiment.task))
        if experiment.task in WITH_MODEL:
            begin_deadline(experiment.launch.start_timeout)
        else:
            end_deadline()  # it starts no process
        check_components(experiment)
        task = task_of(experiment.task)
        check()  # an import may have caught what a signal raised
        return task

    def _claim(self, experiment: Experiment, host: Host | None) -> Experiment:
        """Take the folder, or that of the attempt before, which the experiment then goes on from."""
        begin()
        with signals_held():  # a folder that is taken is one of which it is known
            if host is not None and (before := begun_before(host, self._request.folder)) is not None:
                _leave_no_folder(self._request)
                self._request = replace(self._request, folder=before)
                self._attempts, experiment = go_on(host, before, experiment)
            else:
                take(self._request.folder)
            self._claimed = True
        write_files(self._request)
        if host is not None:
            note_first(host, self._request.folder)
        return experiment

    def _introduce(self, experiment: Experiment, host: Host | None) -> None:
        """What is to be known before it begins; the other processes of the world are told."""
        request = self._request
        for line in (*request.notes, *notes(request.files.get(OVERRIDES, ()), experiment)):
            self._print_line(line)
        resume_collection()
        if self._attempts is not None:
            self._print_line(f"          {said(self._attempts.earlier)}")
        if host is not None and experiment.task in WITH_MODEL:
            tell_the_world(host, request, experiment)
        if theirs := foreign_code(experiment):
            self._print_line(f"trusted   {'; '.join(theirs)}")

    def _ended(self, error: BaseException) -> int:
        """Say how it ended before its time, write that down, and return the exit code."""
        folder = self._request.folder
        late = end_deadline()  # its exception may have been taken for an error of what was built
        if isinstance(error, Exception):
            error = late or error
            if self._claimed and not folder.is_dir():  # whatever fell over that
                error = OutputError(f"{folder}: was moved or deleted while the run wrote there")
        code, line = ending(error)
        line = self._request.hide(line)
        if self._claimed and isinstance(error, KeyboardInterrupt):
            line += f"; what was reached is in {folder}"
        if self._request.values.get("debug") is True or code == DEFECT:
            traceback.print_exception(error)
        print(line, file=sys.stderr, flush=True)
        if not self._claimed:
            _leave_no_folder(self._request)
            return code
        record(folder, code, line)
        if self._attempts is not None:
            conclude(self._attempts, code)
        if code != OutputError.exit_code:
            self._report(_more(folder))
        return code

    def _report(self, more: str = "") -> None:
        if _write_page(self._request.folder):
            self._print_line(f"report    {_page_of(self._request.folder)}{more}")


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
