"""Windows of bytes from text, each with the window one byte later as its target.

text      T h e   q u i c k
input     T h e   q u i c          context = 8
target      h e   q u i c k
"""

from __future__ import annotations

import email
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pipezoo.data.batch import Batch, generator
from pipezoo.errors import ArgumentError
from pipezoo.validators import check_int


def batches(
    batch_size: int, seed: int, context: int, path: str | None = None, pattern: str = "*"
) -> Callable[[int], Batch]:
    """Batches of input and target, both [batch_size, context] int64 with values 0..255, at random places of a text.

    Args:
        batch_size: rows of a batch, >= 1.
        seed: fixes with the step where the rows start, >= 0.
        context: bytes of a row, >= 1.
        path: a file, or a folder whose files are joined in the order of their names; null for the text that comes
            with Python (`builtin_text`).
        pattern: which files of a folder, at any depth; hidden files and folders never count.

    Raises ValueError when there is no such path, no file or too little text.
    """
    check_int("batch_size", batch_size, 1)
    check_int("context", context, 1)
    text = builtin_text() if path is None else read_text(path, pattern)
    num_starts = len(text) - context
    if num_starts < 1:
        raise ArgumentError("context", context, f"the text has {len(text)} bytes", f"1..{len(text) - 1}")
    window = torch.arange(context + 1)

    def batch(step: int) -> Batch:
        starts = torch.randint(num_starts, (batch_size, 1), generator=generator(seed, step))
        rows = torch.from_numpy(text[(starts + window).numpy()]).long()
        return Batch((rows[:, :-1].contiguous(),), {}, rows[:, 1:].contiguous())

    return batch


def read_text(path: str, pattern: str = "*") -> npt.NDArray[np.uint8]:
    """The bytes of a file (mapped, not read), or of a folder's files one after the other.

    Raises ValueError for a missing path, a folder without a matching file, and when there is no byte at all.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise ArgumentError("path", path, "no such file or folder")
    if not (place.is_file() or place.is_dir()):
        raise ArgumentError("path", path, "is no regular file")
    files = [place] if place.is_file() else _files_below(place, pattern)
    if not files:
        raise ArgumentError("path", path, f"the folder has no file that matches pattern={pattern}")
    parts = [np.memmap(file, dtype=np.uint8, mode="r") for file in files if file.stat().st_size]
    if not parts:
        raise ArgumentError("path", path, f"there is no text, {len(files)} empty file(s)")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def builtin_text() -> npt.NDArray[np.uint8]:
    """English that every Python brings: the language reference behind `help()`, some 500 kB.

    Where a distribution leaves it out, the sources of the standard library's `email` stand in. The text differs between
    Python versions.
    """
    try:
        topics: dict[str, str] = import_module("pydoc_data.topics").topics
    except ImportError:
        return read_text(os.path.dirname(email.__file__), "*.py")
    return np.frombuffer("".join(topics[name] for name in sorted(topics)).encode(), dtype=np.uint8)


def _files_below(folder: Path, pattern: str) -> list[Path]:
    found = (file for file in folder.rglob(pattern) if file.is_file())
    return sorted(file for file in found if not any(part[0] == "." for part in file.relative_to(folder).parts))
