"""A schedule as a file: one row per rank, one action per cell, as torch writes and reads it. By arrays, not by cells.

    0F0,0F1,,0B0,0B1          cells that are empty are idle time, and left out
    1F0,1B0,1F1,1B1

A file that holds nothing but well-spelled actions is read by arrays, a few megabytes at a time. Any other one (spaces,
quotes, a cell that is no action) is read cell by cell, which also finds the row and the column at fault.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipezoo.errors import ArgumentError, ScheduleError
from pipezoo.schedule.action import COMPUTE, Action, Op
from pipezoo.schedule.table import Ints, Mask

# op, stage, microbatch, offsets and overlap, as of a Schedule
Columns = tuple[NDArray[np.int8], Ints, Ints, NDArray[np.int64], "Mask | None"]
Bytes = NDArray[np.uint8]

LARGEST_FILE = 512 * 2**20  # bytes, unpacked; 10 million actions take about 100 MB
CHUNK = 2**22  # bytes of text, and about as many actions when writing, that are in work at once
GZIP = b"\x1f\x8b"
SPELLED = b"0123456789,\n();_" + bytes(sorted(set("".join(op.name for op in Op).encode())))
PAIR = b")OVERLAP_F_B"
CLOSE = b"\x01"  # one character in place of these
LONG = tuple(op for op in Op if len(op.name) > 1 and op != Op.OVERLAP_F_B)
MOST_DIGITS = {"stage": 6, "microbatch": 9}  # as Action.parse reads them


def read_bytes(path: Path) -> bytes:
    """The text of a file, which may be compressed by gzip. Raises ScheduleError."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise _of_file(path, "is no regular file")
        with path.open("rb") as file:
            packed = file.read(len(GZIP)) == GZIP
            file.seek(0)
            data = (gzip.GzipFile(fileobj=file) if packed else file).read(LARGEST_FILE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _of_file(path, getattr(error, "strerror", None) or f"not a file of gzip ({error})") from error
    if len(data) > LARGEST_FILE:
        raise _of_file(path, f"more than {LARGEST_FILE} bytes; at most so many are read")
    return data


def parse(path: Path, data: bytes) -> Columns:
    """The columns that the text of ``path`` spells.

    Raises:
        ScheduleError: it is no text, or a cell is no action; names row and column.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    if (columns := _by_arrays(data)) is not None:
        return columns
    try:
        return _cell_by_cell(data)
    except UnicodeDecodeError as error:
        raise _of_file(path, "not a text file") from error
    except csv.Error as error:
        raise _of_file(path, str(error)) from None
    except ScheduleError as error:
        raise _of_file(path, str(error)) from None


def located(path: Path, data: bytes, error: ScheduleError) -> ScheduleError:
    """An error about the ``index``-th action of a file, with the row and the column where that is written."""
    left = -1 if error.index is None else error.index
    for number, cells in _rows(data) if left >= 0 else ():
        for column, cell in enumerate(cells, start=1):
            left -= len(cell.split(";")) if cell.strip() else 0
            if left < 0:
                return _of_file(path, f"row {number}, column {column}: {error}", error.index)
    return _of_file(path, str(error), error.index)


def spell(
    op: NDArray[np.int8], stage: Ints, microbatch: Ints, offsets: NDArray[np.int64], overlap: Mask | None
) -> Iterator[bytes]:
    """The text of a schedule, whose columns these are, in pieces of whole rows or parts of long ones."""
    names = np.array([name.name for name in Op], dtype="S")
    stages = np.arange(int(stage.max()) + 1).astype("S")
    numbers = np.append(np.arange(int(microbatch.max()) + 1).astype("S"), b"")  # the last one is -1, no microbatch
    kinds: list[tuple[str, np.dtype]] = [("stage", stages.dtype), ("op", names.dtype), ("microbatch", numbers.dtype)]
    kinds = [("open", np.dtype("S1")), *kinds, ("end", np.dtype(f"S{len(PAIR) + 1}" if overlap is not None else "S1"))]
    ends = np.append(np.arange(0, len(op), CHUNK // 4), len(op))
    for low, high in pairwise(ends.tolist()):
        part = slice(low, high)
        cells = np.zeros(high - low, dtype=kinds)
        cells["stage"], cells["op"], cells["microbatch"] = (
            stages[stage[part]],
            names[op[part]],
            numbers[microbatch[part]],
        )
        cells["end"] = b","
        if overlap is not None:
            first = overlap[part]
            second = np.concatenate([overlap[low - 1 : low] if low else [False], first[:-1]])
            cells["open"][first], cells["end"][first], cells["end"][second] = b"(", b";", PAIR + b","
        last = offsets[1:][(offsets[1:] > low) & (offsets[1:] <= high)] - 1 - low
        cells["end"][last] = np.where(cells["end"][last] == b",", b"\n", PAIR + b"\n")
        text = cells.view(np.uint8)
        yield text[text != 0].tobytes()


def _by_arrays(data: bytes) -> Columns | None:
    """The columns of a text in which every cell is spelled as we spell it; None for any other text."""
    data = data.replace(b"\r\n", b"\n").replace(b", ", b",")
    if data.translate(None, SPELLED) or b")" in (data := data.replace(PAIR, CLOSE)):
        return None
    parts, offsets, num_actions, low = [], [np.zeros(1, np.int64)], 0, 0
    while low < len(data):
        high = min(len(data), low + CHUNK)
        if high < len(data):
            high = max(data.rfind(b"\n", low, high), data.rfind(b",", low, high)) + 1
            if not high:
                return None  # no cell is as long as that
        text = data[low:high]
        part = _chunk(text if text.endswith((b"\n", b",")) else text + b"\n")
        if part is None:
            return None
        parts.append(part[:4])
        offsets.append(part[4] + num_actions)
        num_actions += len(part[0])
        low = high
    ends = np.concatenate([*offsets, [num_actions]] if data and not data.endswith(b"\n") else offsets)
    while len(ends) > 1 and ends[-1] == ends[-2]:
        ends = ends[:-1]
    if not parts:
        return np.empty(0, np.int8), np.empty(0, np.int32), np.empty(0, np.int32), ends, None
    op, stage, microbatch, overlap = (np.concatenate(column) for column in zip(*parts, strict=True))
    return op, stage, microbatch, ends, overlap if overlap.any() else None


def _chunk(text: bytes) -> tuple[NDArray[np.int8], Ints, Ints, Mask, NDArray[np.int64]] | None:
    """Of cells that end with a separator each: the actions, and how many of them are there at the end of each row."""
    data = np.frombuffer(text + b"\0" * 16, dtype=np.uint8)
    ends = np.flatnonzero((data == ord(",")) | (data == ord("\n")) | (data == ord(";"))).astype(np.int32)
    starts = np.concatenate([np.zeros(1, np.int32), ends[:-1] + np.int32(1)])
    filled = ends > starts
    rows = np.cumsum(filled)[data[ends] == ord("\n")]
    starts, ends = starts[filled], ends[filled]
    opens, closes, semicolon = data[starts] == ord("("), data[ends - 1] == ord(CLOSE), data[ends] == ord(";")
    if opens.any() or closes.any() or semicolon.any():
        if (opens != semicolon).any() or closes[0] or semicolon[-1] or (closes[1:] != semicolon[:-1]).any():
            return None
        starts, ends = starts + opens, ends - closes
    stage, at = _digits(data, starts, ends, MOST_DIGITS["stage"])
    op, after = _ops(data, at)
    microbatch, done = _digits(data, after, ends, MOST_DIGITS["microbatch"])
    of_a_stage = op >= Op.UNSHARD
    right = (at > starts) & (op >= 0) & (done == ends) & ((after == ends) == of_a_stage)
    if not right.all() or (op[opens | closes] > Op.W).any():
        return None
    microbatch[of_a_stage] = -1
    return op, stage, microbatch, opens, rows


def _digits(data: Bytes, start: Ints, end: Ints, most: int) -> tuple[Ints, Ints]:
    """The number that begins at each ``start``, and where its digits end: at ``end``, at another character, ..."""
    value, at = np.zeros(len(start), np.int32), start.copy()
    for _ in range(most):
        digit = data[at] - np.uint8(ord("0"))  # of any other character: more than 9
        more = (digit <= 9) & (at < end)
        if not more.any():
            break
        value = np.where(more, value * np.int32(10) + digit, value)
        at += more
    return value, at


def _ops(data: Bytes, at: Ints) -> tuple[NDArray[np.int8], Ints]:
    """The op whose name begins at each place, -1 for none, and where the name ends."""
    codes = np.full(256, -1, dtype=np.int8)
    codes[[ord(op.name) for op in COMPUTE]] = COMPUTE
    op, after = codes[data[at]], at + np.int32(1)
    long = np.flatnonzero((data[after] >= ord("A")) | (op < 0))
    op[long] = -1
    for name in LONG if len(long) else ():
        same = np.ones(len(long), dtype=bool)
        for place, letter in enumerate(name.name.encode()):
            same[same] = data[at[long[same]] + place] == letter
        op[long[same]] = name
        after[long[same]] = at[long[same]] + len(name.name)
    return op, after


def _cell_by_cell(data: bytes) -> Columns:
    """The same of any text. Raises ScheduleError, UnicodeDecodeError, csv.Error."""
    columns = array("i"), array("i"), array("i")
    offsets, pairs = [0], array("q")
    for number, cells in _rows(data):
        for column, cell in enumerate(cells, start=1):
            if not cell or cell.isspace():
                continue
            try:
                action = Action.parse(cell)
            except ValueError as error:
                raise ScheduleError(f"row {number}, column {column}: {error}") from None
            if action.parts:
                pairs.append(len(columns[0]))
            for part in action.parts or (action,):
                values = (part.op, part.stage, -1 if part.microbatch is None else part.microbatch)
                for values_of, value in zip(columns, values, strict=True):
                    values_of.append(value)
        offsets.append(len(columns[0]))
    while len(offsets) > 1 and offsets[-1] == offsets[-2]:
        offsets.pop()
    op, stage, microbatch = (np.array(column, dtype=np.int32) for column in columns)
    overlap = np.zeros(len(op), dtype=bool) if pairs else None
    if overlap is not None:
        overlap[np.array(pairs)] = True
    return op.astype(np.int8), stage, microbatch, np.array(offsets), overlap


def _rows(data: bytes) -> Iterator[tuple[int, list[str]]]:
    """The rows of a text with their numbers, from 1."""
    return enumerate(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=None)), start=1)


def _of_file(path: Path, why: str, index: int | None = None) -> ScheduleError:
    error = ArgumentError("file", path, why)
    return ScheduleError(str(error), index, error)
