"""The folder of a run that Python asked for: claimed, filled as the command line fills it, named by what is raised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipezoo.cli.outcome import ending, record
from pipezoo.errors import ConfigError, OutputError, PipezooError
from pipezoo.report.html import write_report
from pipezoo.results.run_dir import RESULT, claim, fresh_folder


@contextmanager
def in_folder(asked: str | Path | None) -> Iterator[Path]:
    """A folder that is this run's own, with its page at the end. An error is written down in it, and raised.

    Raises:
        OutputError: the folder holds a run already, or cannot be written.
    """
    folder = claim(fresh_folder() if asked is None else Path(asked))
    try:
        yield folder
    except BaseException as error:
        if isinstance(error, ConfigError) and {path.name for path in folder.iterdir()} == {RESULT}:
            _remove(folder)
            raise
        if isinstance(error, PipezooError):
            error.folder = folder
        record(folder, *ending(error))
        _page(folder)
        raise
    _page(folder)


def _page(folder: Path) -> None:
    """The page shows what the other files say: a run without it has lost nothing."""
    with suppress(OSError, OutputError):
        write_report(folder)


def _remove(folder: Path) -> None:
    """Of a run that did not come to be, nothing stays."""
    with suppress(OSError):
        (folder / RESULT).unlink()
        folder.rmdir()
