"""What may stand in a cost: the entries of its stages, as keyword arguments or as a plain dict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipezoo.errors import MISSING, ArgumentError
from pipezoo.schedule.action import COMPUTE
from pipezoo.validators import check_number

Floats = NDArray[np.float64]

BYTES_AND_OPTIMIZER = ("activation_bytes", "freed_by_input_grad", "output_bytes", "optimizer", "tp_bytes", "grad_bytes")
STAGE_KEYS = (*(op.name for op in COMPUTE), *BYTES_AND_OPTIMIZER)


def table_of(given: Mapping[str, ArrayLike | None]) -> tuple[Floats, bool]:
    """``[num_stages, 4]`` seconds from numbers or lists of them, and whether there was no list among them."""
    sizes, columns = {}, []
    for key, value in given.items():
        try:
            column = np.asarray(math.nan if value is None else value, dtype=np.float64)
        except (TypeError, ValueError):
            column = np.empty((0, 0))
        if column.ndim > 1 or (column.ndim and not len(column)):
            raise ArgumentError(key, value, "must be a number, or a list with one for each stage")
        if column.ndim:
            sizes[key] = len(column)
        columns.append(column)
    if len({*sizes.values()}) > 1:
        first, one = next(iter(sizes.items()))
        other, another = next(item for item in sizes.items() if item[1] != one)
        raise ArgumentError(other, MISSING, f"is of {another} stages, but {first} is of {one}")
    num_stages = next(iter(sizes.values()), 1)
    return np.column_stack([np.broadcast_to(column, num_stages) for column in columns[: len(COMPUTE)]]), not sizes


def range_text(values: Floats) -> str:
    """``1``, or ``1 .. 2`` where they are not all alike."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return f"{low:g}" if low == high else f"{low:g} .. {high:g}"


def entries_of(stages: object, num_stages: int | None) -> list[dict[str, float]]:
    if isinstance(stages, Mapping):
        if num_stages is None:
            why = "a single entry for every stage needs the number of stages; or write a list"
            raise ArgumentError("stages", MISSING, why)
        return [_entry("stages", stages)] * num_stages
    if not isinstance(stages, Sequence) or isinstance(stages, str) or not stages:
        raise ArgumentError(
            "stages", stages, "must be a list of entries, one a stage, or a single entry for all stages"
        )
    if num_stages is not None and len(stages) != num_stages:
        what = "is missing" if len(stages) < num_stages else "is one too many"
        first = min(len(stages), num_stages)
        why = f"{what}; {len(stages)} entries, but the pipeline has {num_stages} stages"
        raise ArgumentError(f"stages[{first}]", MISSING, why)
    return [_entry(f"stages[{stage}]", entry) for stage, entry in enumerate(stages)]


def _entry(name: str, entry: object) -> dict[str, float]:
    return {key: check_number(f"{name}.{key}", value) for key, value in mapping(name, entry, STAGE_KEYS).items()}


def negative(name: str, value: float) -> ArgumentError:
    return ArgumentError(name, value, "must be a number >= 0")


def mapping(name: str, value: object, valid: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ArgumentError(name, value, "must be a table of keys", valid)
    for key in value:
        if key not in valid:
            raise ArgumentError(f"{name}.{key}", value[key], "no such key", valid)
    return dict(value)
