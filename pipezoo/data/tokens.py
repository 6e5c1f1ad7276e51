"""Windows of a file of token numbers, as tokenizers of training data write them: numbers and nothing else.

file      17 204 9 3 88 61 5 | 12 7 ...      uint16 or uint32, in the order of the machine
row 0     17 204 9 3                         context = 4: rows do not overlap, but for the token that ends one
target       204 9 3 88                      and begins the next
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipezoo.data._rows import Rows
from pipezoo.data.batch import Batch
from pipezoo.errors import MISSING, ArgumentError
from pipezoo.validators import check_int, check_word

DTYPES = ("uint8", "uint16", "uint32", "int32", "int64")


def batches(
    batch_size: int,
    seed: int,
    path: str | None,
    context: int,
    dtype: str = "uint16",
    skip: int = 0,
    shuffle: bool = True,
    workers: int = 0,
    prefetch: int = 2,
) -> Callable[[int], Batch]:
    """Batches of input and target, both [batch_size, context] int64.

    The file is mapped and never read whole.

    Args:
        batch_size: rows of a batch, >= 1.
        seed: fixes with the epoch the order of the windows, >= 0.
        path: of the file.
        context: tokens of a row, >= 1.
        dtype: of a token in the file: uint8, uint16, uint32, int32 or int64.
        skip: bytes before the first token, >= 0: what a header takes.
        shuffle: whether the windows have another order in every epoch; else that of the file.
        workers, prefetch: processes that load ahead, and batches that each has ready.

    Raises:
        ValueError: there is no such file, or less than a batch in it.
    """
    check_int("context", context, 1)
    check_int("skip", skip, 0)
    check_word("dtype", dtype, DTYPES)
    if path is None:
        raise ArgumentError("path", MISSING, "is needed", "a file of token numbers, data.path=tokens.bin")
    place = Path(path).expanduser()
    if not place.is_file():
        raise ArgumentError("path", path, "is no file" if place.exists() else "no such file")
    width, size = np.dtype(dtype).itemsize, place.stat().st_size - skip
    if size % width:
        raise ArgumentError("dtype", dtype, f"{path} has {size} bytes of tokens, no multiple of {width}")
    num_rows = max(0, (size // width - 1) // context)
    if not num_rows:
        raise ArgumentError("context", context, f"{path} has {max(0, size) // width} tokens")
    tokens = np.memmap(place, dtype=dtype, mode="r", offset=skip)
    window = np.arange(context + 1)

    def fetch(indices: list[int]) -> Batch:
        starts = np.asarray(indices, dtype=np.int64)[:, None] * context
        rows = torch.from_numpy(tokens[starts + window].astype(np.int64))
        return Batch((rows[:, :-1].contiguous(),), {}, rows[:, 1:].contiguous())

    return Rows(num_rows, batch_size, seed, fetch, shuffle, False, workers, prefetch)
