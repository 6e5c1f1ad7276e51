"""Where the processes of a run leave things for each other."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipezoo.errors import OutputError

NAME = ".scratch"


@contextmanager
def rendezvous_dir(folder: Path) -> Iterator[Path]:
    """A folder that this user alone can read, gone at the end.

    It is inside of the run's own, so that nothing lies about elsewhere when this process is killed; but where files
    cannot be locked there (as on some network file systems), which the ranks need to find each other, it is among the
    system's temporary ones.
    """
    path = folder / NAME
    try:
        path.mkdir(mode=0o700)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made: {error.strerror or error}") from error
    if not _can_lock(path):
        path.rmdir()
        path = Path(tempfile.mkdtemp(prefix="pipezoo-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _can_lock(folder: Path) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows locks by other means, everywhere
        return True
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            return False
    return True
