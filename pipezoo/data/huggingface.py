"""A data set of Hugging Face's `datasets` from local files: a saved folder, arrow or parquet. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pipezoo.data._rows import Rows
from pipezoo.data._samples import Form
from pipezoo.data.batch import Batch
from pipezoo.errors import MISSING, ArgumentError

SUFFIXES = (".parquet", ".arrow")


def batches(
    batch_size: int,
    seed: int,
    path: str | None,
    split: str | None = None,
    inputs: tuple[str, ...] = (),
    target: str | None = None,
    shift: bool = False,
    shuffle: bool = True,
    workers: int = 0,
    prefetch: int = 2,
) -> Callable[[int], Batch]:
    """Batches of the rows of a table on disk.

    Args:
        batch_size: rows of a batch, >= 1.
        seed: fixes with the epoch the order of the rows, >= 0.
        path: a folder that ``save_to_disk`` wrote, an .arrow or .parquet file, or a folder of these files.
        split: which part of a saved ``DatasetDict``, or of a folder of files whose names begin with it.
        inputs: the columns that are inputs, by the names of the model's forward; empty: all but the target.
        target: the column that is the target; None: labels, label, target or targets.
        shift: whether a row is one sequence of tokens (the first of ``inputs``), whose target is the next one.
        shuffle: whether the rows have another order in every epoch.
        workers, prefetch: processes that load ahead, and batches that each has ready.

    Raises:
        ValueError: the library is missing, there is no such table, or it has no such column.
    """
    if path is None:
        raise ArgumentError("path", MISSING, "is needed", "a folder of save_to_disk, .arrow or .parquet files")
    table = _table(Path(path).expanduser(), path, split)
    columns = list(table.column_names)
    wanted = [*inputs, *([target] if target else [])]
    for name in wanted:
        if name not in columns:
            argument = "target" if name == target else "inputs"
            raise ArgumentError(argument, name, f"{path} has no such column", columns)
    if shift and not inputs:
        wanted = columns[:1]
    table = table.with_format("torch", columns=wanted if inputs and (target or shift) else None)
    fetch = partial(_fetch, table, Form(tuple(inputs or wanted[:1] if shift else inputs), target, shift))
    return Rows(len(table), batch_size, seed, fetch, shuffle, False, workers, prefetch)


def _fetch(table: Any, form: Form, indices: list[int]) -> Batch:
    """The columns of these rows; rows of unequal lengths come as lists, which the form refuses."""
    found = table[indices]
    if any(isinstance(column, list) for column in found.values()):
        names = list(found)
        return form.batch_of_samples([dict(zip(names, row, strict=True)) for row in zip(*found.values(), strict=True)])
    return form.batch(found)


def _table(place: Path, typed: str, split: str | None) -> Any:
    try:
        datasets = import_module("datasets")
    except ImportError:
        why = "needs the package datasets: pip install 'pipezoo[datasets]'"
        raise ArgumentError("path", typed, why) from None
    datasets.disable_progress_bars()  # a bar is a thread, beside which no process can be forked
    if not place.exists():
        raise ArgumentError("path", typed, "no such file or folder")
    if (place.is_dir() and (place / "dataset_dict.json").is_file()) or (place / "state.json").is_file():
        return _saved(datasets, place, typed, split)
    files = [place] if place.is_file() else sorted(file for suffix in SUFFIXES for file in place.glob(f"*{suffix}"))
    if place.is_dir() and split is not None:
        files = [file for file in files if file.name.startswith(split)]
    if not files or any(file.suffix not in SUFFIXES for file in files):
        why = f"holds no {' or '.join(SUFFIXES)} file" + (f" that begins with {split}" if split else "")
        raise ArgumentError("path", typed, why, "what save_to_disk wrote, .arrow or .parquet files")
    tables = [_of_file(datasets, file) for file in files]
    return tables[0] if len(tables) == 1 else datasets.concatenate_datasets(tables)


def _saved(datasets: Any, place: Path, typed: str, split: str | None) -> Any:
    found = datasets.load_from_disk(str(place))
    if not isinstance(found, datasets.DatasetDict):
        if split is not None:
            raise ArgumentError("split", split, f"{typed} is one table, without splits", "null")
        return found
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split not in found:
        raise ArgumentError("split", split, f"{typed} has splits", list(found))
    return found[split]


def _of_file(datasets: Any, file: Path) -> Any:
    """Mapped where it is arrow; parquet is unpacked into memory, by this thread alone."""
    if file.suffix == ".arrow":
        return datasets.Dataset.from_file(str(file))
    table = import_module("pyarrow.parquet").read_table(str(file), use_threads=False, pre_buffer=False)
    return datasets.Dataset(datasets.table.InMemoryTable(table))
