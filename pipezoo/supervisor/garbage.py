"""When Python looks for garbage: not while it imports, and never through what a child shares with its parent.

A collection touches every object that it looks at, and a touched page of a forked process is copied.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def pause_collection() -> None:
    """Look for no garbage until :func:`resume_collection`: imports make hardly any."""
    gc.disable()


def resume_collection() -> None:
    """Look for garbage again, in what is allocated from now on; all that was imported stays."""
    gc.freeze()
    gc.enable()


@contextmanager
def frozen() -> Iterator[None]:
    """Keep the collections of children that are forked in the block off what this process has allocated."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
