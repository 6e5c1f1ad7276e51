"""The files of a run's folder. Each appears whole or not at all, and two runs never share a folder.

claim(folder)                      result.json = {"status": "running", ...}, by exactly one of any number of runs
write_json(folder / "result.json", {...})
MetricsFile(folder / "metrics.jsonl").append({...})       one line per step, whole or not at all

whole file:  write .name.tmp -> fsync -> rename to name -> fsync the folder
             killed anywhere before the rename: the old file is untouched
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from pipezoo.errors import ConfigError, OutputError
from pipezoo.validators import regular_file

RESULT = "result.json"
METRICS = "metrics.jsonl"
CONFIG = "config.yaml"
REPORT = "report.html"
PICTURE = "timeline.txt"  # some ranks in letters, where there are too many spans for a file
FAILURE = "failure.json"  # where every rank stood when a run failed
OF_A_RUN = (METRICS, FAILURE, "ranks.log", ".scratch", "checkpoints")  # what only a run leaves in its folder


def fresh_folder() -> Path:
    """Where a run goes that was not told where: a folder of its own."""
    return Path("outputs") / time.strftime("%Y-%m-%d") / f"{time.strftime('%H-%M-%S')}-{secrets.token_hex(2)}"


def claim(folder: str | Path) -> Path:
    """Make ``folder`` this run's own: create it where needed, and ``result.json`` in it with status ``running``.

    Raises:
        OutputError: the folder already holds a run, or cannot be written.
    """
    folder = Path(folder)
    running = {"status": "running", "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "pid": os.getpid()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (left := [name for name in OF_A_RUN if os.path.lexists(folder / name)]) and not (folder / RESULT).exists():
            raise OutputError(f"hydra.run.dir={folder}: holds {left[0]}, which a run left there; choose another folder")
        draft = _draft(folder / RESULT)
        try:
            _write_synced(draft, _json_bytes(running))
            _create(draft, folder / RESULT)
            sync_folder(folder)
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:
        raise OutputError(f"hydra.run.dir={folder}: already holds a run; choose a folder without {RESULT}") from None
    except OSError as error:
        raise OutputError(f"hydra.run.dir={folder}: cannot be written: {error.strerror or error}") from error
    return folder


def write_json(path: str | Path, content: object) -> None:
    """Write ``content`` as JSON, whole. Numbers that are not finite become the strings NaN, Infinity and -Infinity.

    Raises:
        OutputError: the disk is full, the folder read-only, ... The file that stood there before still stands.
    """
    with whole_file(path) as file:
        file.write(_json_bytes(content))


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` in UTF-8, whole. Raises as :func:`write_json`."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write to, that takes its name only when it is complete and on disk. Raises as :func:`write_json`."""
    path = Path(path)
    draft = _draft(path)
    try:
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise


class MetricsFile:
    """Lines of JSON, one per :meth:`append`, handed to the system when it returns: a kill of the process loses none.

    A line that a full disk cuts short is taken back, and one that a kill cut short is dropped when the file is
    opened again, so that what is in the file can be read.

    Raises:
        OutputError: from the constructor and from ``append``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file = open(self.path, "ab+", buffering=0)  # noqa: SIM115 - closed by close()
            self._end = self._end_of_whole_lines()
            self._file.truncate(self._end)
            self._inode = os.fstat(self._file.fileno()).st_ino
        except OSError as error:
            raise self._unwritable(error) from error

    def append(self, metrics: dict[str, Any]) -> None:
        line = json.dumps(plain(metrics), allow_nan=False).encode() + b"\n"
        try:
            if os.stat(self.path).st_ino != self._inode:
                raise FileNotFoundError(errno.ENOENT, "another file took its place")
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise self._unwritable(error) from error
        self._end += len(line)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _end_of_whole_lines(self) -> int:
        self._file.seek(0)
        return self._file.read().rfind(b"\n") + 1

    def _unwritable(self, error: OSError) -> OutputError:
        if isinstance(error, FileNotFoundError):
            return OutputError(f"{self.path.parent}: was moved or deleted while the run wrote there")
        return OutputError(f"{self.path}: cannot be written: {error.strerror or error}")


def read_result(folder: str | Path) -> dict[str, Any]:
    """``result.json`` of a run's folder.

    Raises:
        ConfigError: there is no run in the folder, or its ``result.json`` is not one.
    """
    path = Path(folder) / RESULT
    try:
        result = json.loads(regular_file(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"folder={folder}: holds no run (there is no {RESULT})") from None
    except OSError as error:
        raise ConfigError(f"folder={folder}: {RESULT} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"folder={folder}: {RESULT} is not JSON") from None
    if not isinstance(result, dict):
        raise ConfigError(f"folder={folder}: {RESULT} is not the result of a run")
    return result


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` of a run's folder, none where there is no such file; a torn line is left out."""
    try:
        lines = regular_file(Path(folder) / METRICS).read_bytes().splitlines()
    except OSError:
        return []
    metrics = []
    for line in lines:
        with suppress(ValueError, RecursionError):
            if isinstance(entry := json.loads(line), dict):
                metrics.append(entry)
    return metrics


def plain(content: Any) -> Any:
    """The same in what JSON has: numpy numbers and arrays, tuples, paths and numbers that are not finite included."""
    if isinstance(content, float):
        if math.isfinite(content):
            return float(content)
        return "NaN" if math.isnan(content) else "Infinity" if content > 0 else "-Infinity"
    if isinstance(content, (bool, int, str)) or content is None:
        return content
    if isinstance(content, dict):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [plain(value) for value in content]
    if isinstance(content, os.PathLike):
        return os.fspath(content)
    if hasattr(content, "tolist"):
        return plain(content.tolist())
    raise TypeError(f"{type(content).__name__} has no spelling in JSON: {content!r}")


def _json_bytes(content: object) -> bytes:
    text = json.dumps(plain(content), allow_nan=False, ensure_ascii=False, indent=2) + "\n"
    return text.encode("utf-8", "backslashreplace")  # what is no character becomes \udcxx, JSON's own escape


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _create(draft: Path, path: Path) -> None:
    """Give ``draft`` the name ``path`` unless that exists. Raises ``FileExistsError``."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: exclusive still, though not whole at once
        _write_synced(path, draft.read_bytes())


def sync_folder(folder: Path) -> None:
    """Put the folder's list of names on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
