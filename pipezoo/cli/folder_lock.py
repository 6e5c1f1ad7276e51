"""A folder that one process has to itself, for as long as it and those forked from it live."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 1.0  # seconds in which a holder that was killed is gone


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold a folder while the block lasts; False where another process holds it.

    The system lets go of it with the last process that has it, however that one ends. Where folders cannot be locked
    (Windows, some network disks) everybody is told True.
    """
    handle = lock_folder(folder)
    try:
        yield handle is not None
    finally:
        if handle:
            os.close(handle)


def lock_folder(folder: Path) -> int | None:
    """Hold a folder until the number that is returned is closed (0: it cannot be locked); None: another holds it."""
    try:
        import fcntl
    except ImportError:
        return 0
    handle = os.open(folder, os.O_RDONLY)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES) or time.monotonic() > until:
                os.close(handle)
                return None if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else 0
        time.sleep(0.02)
