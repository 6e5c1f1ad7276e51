"""How a run ended: its exit code and its one line, what ``result.json`` says of it, and the number a sweeper wants."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipezoo.cli.signals import interrupted
from pipezoo.errors import ConfigError, OutputError, PipezooError, RankError, no_room
from pipezoo.results.run_dir import RESULT, read_result, write_json
from pipezoo.results.sanitize import printable

DEFECT = 1  # exit code of an error that nobody foresaw
TOO_FEW = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)


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


def result_of(folder: Path) -> dict[str, Any]:
    """``result.json`` of a folder; empty where there is none that can be read."""
    try:
        return dict(read_result(folder))
    except (OSError, ValueError, PipezooError):
        return {}
