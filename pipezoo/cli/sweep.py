"""The end of a sweep: one table and one page over all of its runs, and the worst of their exit codes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipezoo.cli.outcome import DEFECT, ending, result_of
from pipezoo.cli.resume import takes_what_applies
from pipezoo.errors import ConfigError, PipezooError
from pipezoo.report.sweep_page import write_sweep_report
from pipezoo.results.run_dir import RESULT
from pipezoo.results.sanitize import is_terminal
from pipezoo.results.sweep_table import TABLE, errors, write_sweep


def end_of_sweep(folder: Path) -> int:
    """Print the table of a sweep, from what its runs left behind, and return the worst of their exit codes."""
    if not folder.is_dir() or not _folders(folder):
        return 0  # it was refused before its first run
    from rich.console import Console

    try:
        rows, table = write_sweep(folder)
        page = write_sweep_report(folder)
    except PipezooError as error:
        code, line = ending(error)
        print(line, file=sys.stderr)
        return code
    print()
    Console(width=None if is_terminal(sys.stdout) else 200).print(table)
    for line in errors(rows):
        print(line)
    print(f"\n{folder / TABLE}\n{page}")
    return sweep_exit_code(folder)


def sweep_exit_code(folder: Path) -> int:
    """The worst exit code of the runs in a sweep's folder; never 0 when one of them failed or left no result."""
    codes = [0]
    for run_folder in _folders(folder):
        results = sorted(run_folder.rglob(RESULT))
        codes += [_code(result_of(result.parent)) for result in results] or [DEFECT]
    if takes_what_applies(folder) and 0 in codes[1:]:  # what does not apply was said, and is no failure
        codes = [code for code in codes if code != ConfigError.exit_code]
    return max(codes)


def _folders(folder: Path) -> list[Path]:
    """Those of a sweep's runs; hidden ones are none."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _code(result: Mapping[str, Any]) -> int:
    failed = result.get("status") in (None, "running", "failed", "interrupted")
    return int(result.get("exit_code") or (DEFECT if failed else 0))
