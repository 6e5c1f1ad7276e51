"""The jobs of a sweep as one table, from their folders alone: also of jobs that died, or never began.

    multirun/2026-11-23/01-10-15/
      0/ .hydra/overrides.yaml   - stages=2        \\
         result.json             {"status": "ok"}   |   job  stages  status  step      bubble   ...
      1/ .hydra/overrides.yaml   - stages=4         |->   0       2  ok      12.3 ms   33.3 %
         result.json             {"sta              |     1       4  torn
      2/ .hydra/overrides.yaml   - stages=8        /      2       8  missing
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import yaml  # type: ignore[import-untyped]

from pipezoo.errors import ConfigError
from pipezoo.results.run_dir import RESULT, read_result, write_text
from pipezoo.results.sanitize import printable
from pipezoo.results.units import time_text
from pipezoo.validators import regular_file

if TYPE_CHECKING:
    from rich.table import Table

TABLE = "sweep.csv"
OVERRIDES = Path(".hydra") / "overrides.yaml"
DOES_NOT_APPLY = "does not apply"  # the status of a run that a glob found, and that the other words do not fit
LARGEST = 1e150  # beyond it differences and squares of numbers are infinite
MOST_JOBS = 12  # that are named with one error
LARGEST_OVERRIDES = 2**20  # bytes
MEASURED = (
    "status",
    "verified",
    "step_seconds",
    "samples_per_second",
    "bubble_measured",
    "bubble_predicted",
    "unit",
    "folder",
    "error",
)


def collect(folder: str | Path) -> list[dict[str, Any]]:
    """One row per job, in the order of the sweep.

    Keys of a row: ``job``; then the swept keys, those that are not the same in all jobs (all keys, where all are);
    then ``status`` (``missing`` without a ``result.json``, ``torn`` where that is no JSON), ``verified``,
    ``step_seconds`` (the median), ``samples_per_second``, ``bubble_measured`` and ``bubble_predicted`` (of the
    makespan), ``unit`` (of the step: ``s``, or ``unit`` of a unit cost), ``folder`` (relative to the sweep's) and
    ``error``. What a job does not say is None.

    Raises:
        ConfigError: there is no job in the folder.
    """
    folder = Path(folder)
    jobs = sorted((path for path in _subfolders(folder) if _is_job(path)), key=_place)
    if not jobs:
        raise ConfigError(f"folder={folder}: holds no sweep (no subfolder with {RESULT} or {OVERRIDES})")
    overrides = [_overrides(job) for job in jobs]
    keys = list(dict.fromkeys(key for job in overrides for key in job))
    known = [job for job in overrides if job]
    swept = [key for key in keys if len({job.get(key) for job in known}) > 1] or keys
    rows = []
    for job, chosen in zip(jobs, overrides, strict=True):
        row: dict[str, Any] = {"job": job.name} | {key: chosen.get(key) for key in swept}
        rows.append(row | _outcome(job))
    return rows


def swept_keys(rows: list[dict[str, Any]]) -> list[str]:
    """The keys of :func:`collect`'s rows that come from the command line."""
    return [key for key in rows[0] if key != "job" and key not in MEASURED] if rows else []


def to_csv(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV with a header; numbers with all their digits, and None as an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(printable(key) for key in (rows[0] if rows else ()))
    for row in rows:
        writer.writerow(printable(value) if isinstance(value, str) else value for value in row.values())
    return out.getvalue()


class Cell(NamedTuple):
    """One value of a row as people read it: ``text`` with its unit, and the ``value`` to sort by."""

    name: str
    text: str
    value: float | str | None
    is_number: bool


def cells(rows: list[dict[str, Any]]) -> list[list[Cell]]:
    """The rows as a person reads them; a column that is empty in all of them is left out."""
    table = [_cells(row, swept_keys(rows)) for row in rows]
    filled = [any(row[column].text for row in table) for column in range(len(table[0]))] if table else []
    return [[cell for cell, keep in zip(row, filled, strict=True) if keep] for row in table]


def to_table(rows: list[dict[str, Any]]) -> Table:
    """The rows as a table for the terminal, with units; nothing in it can act on the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=True, header_style="bold")
    readable = cells(rows)
    for cell in readable[0] if readable else []:
        side: Literal["left", "right"] = "right" if cell.is_number else "left"
        table.add_column(Text(printable(cell.name)), justify=side, no_wrap=cell.is_number, overflow="fold")
    for row, line in zip(rows, readable, strict=True):
        style = "" if succeeded(row) else "dim" if row["status"] == DOES_NOT_APPLY else "red"
        table.add_row(*(Text(printable(cell.text)) for cell in line), style=style)
    return table


def succeeded(row: dict[str, Any]) -> bool:
    return bool(row["status"] == "ok" and row["verified"] != "failed")


def errors(rows: list[dict[str, Any]]) -> list[str]:
    """One line for each error, with the jobs that ended with it: ``jobs 2, 3: rank 1 killed by SIGKILL``."""
    jobs: dict[str, list[str]] = {}
    for row in rows:
        if row["error"]:
            jobs.setdefault(row["error"], []).append(row["job"])
    return [f"{_jobs(names)}: {printable(error)}" for error, names in jobs.items()]


def _jobs(names: list[str]) -> str:
    shown = names if len(names) <= MOST_JOBS else [*names[: MOST_JOBS - 2], "...", names[-1]]
    listed = ", ".join(map(printable, shown))
    return f"job {listed}" if len(names) == 1 else f"jobs {listed}"


def write_sweep(folder: str | Path) -> tuple[list[dict[str, Any]], Table]:
    """Write ``sweep.csv`` into the sweep's folder and return the rows, and their table.

    Raises:
        ConfigError: there is no job in the folder.
        OutputError: the folder cannot be written.
    """
    rows = collect(folder)
    write_text(Path(folder) / TABLE, to_csv(rows))
    return rows, to_table(rows)


def number(value: Any) -> float | None:
    """A number of a result file as float; None for anything else, and for one that no picture can be scaled to."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -LARGEST < value < LARGEST else None


def inner(content: Any, *keys: str) -> Any:
    """``content[key][key]...``, None where the way ends early."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def _cells(row: dict[str, Any], keys: list[str]) -> list[Cell]:
    step, rate = row["step_seconds"], row["samples_per_second"]
    words = [
        ("job", row["job"]),
        *((key, row[key]) for key in keys),
        *((key, row[key]) for key in ("status", "verified")),
    ]
    numbers = [
        ("step", "" if step is None else time_text(step, row["unit"]), step),
        ("samples/s", "" if rate is None else f"{rate:.4g}", rate),
        *(
            (name, "" if row[key] is None else f"{100 * row[key]:.1f} %", row[key])
            for name, key in (("bubble", "bubble_measured"), ("predicted", "bubble_predicted"))
        ),
    ]
    return [
        *(Cell(name, "" if text is None else str(text), text, _is_number(text)) for name, text in words),
        *(Cell(name, text, value, True) for name, text, value in numbers),
    ]


def _is_number(text: str | None) -> bool:
    try:
        return text is not None and math.isfinite(float(text))
    except ValueError:
        return False


def _outcome(job: Path) -> dict[str, Any]:
    outcome: dict[str, Any] = dict.fromkeys(MEASURED) | {"folder": job.name}
    if not (job / RESULT).exists():
        return outcome | {"status": "missing"}
    try:
        result = read_result(job)
    except ConfigError as error:
        return outcome | {"status": "torn", "error": str(error)}
    return outcome | {
        "status": _words(result.get("status")),
        "verified": _words(result.get("verified")),
        "step_seconds": number(inner(result, "step_seconds", "median")),
        "samples_per_second": number(result.get("samples_per_second")),
        "bubble_measured": number(inner(result, "bubble", "measured", "makespan")),
        "bubble_predicted": number(inner(result, "bubble", "predicted", "makespan")),
        "unit": "s" if result.get("time_unit", "s") == "s" else "unit",
        "error": _words(result.get("error")),
    }


def _words(value: Any) -> str | None:
    """What a person reads of a status or an error: the text, or the ``message`` of a structured one."""
    if isinstance(value, dict):
        value = value.get("message", value)
    return None if value is None else str(value)


def _subfolders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError as error:
        raise ConfigError(f"folder={folder}: {error.strerror or error}") from None


def _is_job(folder: Path) -> bool:
    return (folder / RESULT).exists() or (folder / OVERRIDES).exists()


def _place(job: Path) -> tuple[bool, int, str]:
    return (not job.name.isdecimal(), int(job.name) if job.name.isdecimal() else 0, job.name)


def read_overrides(folder: str | Path) -> list[str]:
    """The words of the command line that a run was started with; none where they cannot be read."""
    try:
        with regular_file(Path(folder) / OVERRIDES).open("rb") as file:
            words = yaml.safe_load(file.read(LARGEST_OVERRIDES))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return []
    return [word for word in words if isinstance(word, str)] if isinstance(words, list) else []


def _overrides(job: Path) -> dict[str, str]:
    pairs = (word.partition("=") for word in read_overrides(job))
    return {key.lstrip("+~"): value for key, equals, value in pairs if equals}
