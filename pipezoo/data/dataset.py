"""A data set of one's own: torch's Dataset, IterableDataset or DataLoader, a list, or any iterable.

has a length and rows by number    shuffled by (seed, epoch); torch's Dataset, Hugging Face's, a list
can be iterated                    read in its own order; IterableDataset, a generator
a DataLoader                       as it is, with its own sampler, collate and workers
a function of the step             as every source of pipezoo is
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pipezoo.data._rows import Rows
from pipezoo.data._samples import Form
from pipezoo.data._streams import Stream
from pipezoo.data.batch import Batch
from pipezoo.errors import MISSING, ArgumentError
from pipezoo.validators import check_bool

VALID = "a torch Dataset, IterableDataset or DataLoader, a sequence of samples, an iterable, a function of the step"


Makes = Callable[[], Any]


def batches(
    batch_size: int,
    seed: int,
    source: Makes,
    shuffle: bool = True,
    repeat: bool | None = None,
    inputs: tuple[str, ...] = (),
    target: str | tuple[str, ...] | None = None,
    shift: bool = False,
    collate: Callable[[list[Any]], Any] | None = None,
    workers: int = 0,
    prefetch: int = 2,
) -> Callable[[int], Batch]:
    """Batches of a data set of one's own.

    Args:
        batch_size: rows of a batch, >= 1.
        seed: fixes with the epoch the order of the rows and what the data set draws, >= 0.
        source: makes the data set; it is called once by every process that reads.
        shuffle: whether rows that have numbers are shuffled in every epoch; others keep their order.
        repeat: whether a new epoch begins where the data end; None: where they have a length.
        inputs: of samples that are dicts, the names of the inputs; empty: all but the target.
        target: of samples that are dicts, the name of the target, or of several; None: labels, label, target ....
        shift: whether a row is one sequence of tokens, whose target is the next one.
        collate: makes one value of a list of samples; None: torch's own.
        workers: processes that load ahead, in each rank that needs data, >= 0.
        prefetch: batches that each of them has ready, >= 1.

    Raises:
        ValueError: it is no data set, or one with less than a batch.
    """
    if not callable(source):
        raise ArgumentError("source", source, "must be a part with a _target_", VALID)
    check_bool("shuffle", shuffle)
    check_bool("shift", shift)
    if repeat is not None:
        check_bool("repeat", repeat)
    found = source()
    form = Form(tuple(inputs), target, shift, collate)
    if isinstance(found, DataLoader):
        return _of_loader(found, source, batch_size, seed, form, repeat, workers)
    if has_rows(found):
        fetch = partial(_fetch, found, form)
        rows = Rows(len(found), batch_size, seed, fetch, shuffle, True, workers, prefetch)
        return rows if repeat is not False else Ends(rows)
    if isinstance(found, Iterable) and not isinstance(found, (str, Mapping, torch.Tensor)):
        sized = hasattr(found, "__len__") and not isinstance(found, IterableDataset)
        again = sized if repeat is None else repeat
        return Stream(source, batch_size, seed, form, False, again, workers, prefetch)
    if callable(found):
        made: Callable[[int], Batch] = found
        return made
    raise ArgumentError("source", MISSING, f"made {type(found).__name__}", VALID)


def has_rows(found: Any) -> bool:
    """Whether a data set gives rows by number and knows how many there are."""
    if isinstance(found, (IterableDataset, Mapping, str, torch.Tensor)):
        return False
    if isinstance(found, Dataset) and not hasattr(found, "__len__"):
        return False
    return hasattr(found, "__getitem__") and hasattr(found, "__len__")


class Ends:
    """Rows for one epoch. A step after it is refused."""

    def __init__(self, rows: Rows) -> None:
        self._rows, self.workers, self.prefetch = rows, rows.workers, rows.prefetch

    @property
    def num_steps(self) -> int:
        """How many steps there are batches for."""
        return self._rows.steps_per_epoch

    def __call__(self, step: int) -> Batch:
        return self._rows(step)


def _fetch(found: Any, form: Form, indices: list[int]) -> Batch:
    if callable(several := getattr(found, "__getitems__", None)):
        return form.batch_of_samples(list(several(indices)))
    samples = []
    for index in indices:
        try:
            samples.append(found[index])
        except Exception as error:
            error.culprit = f"row {index}"  # type: ignore[attr-defined]
            raise
    return form.batch_of_samples(samples)


def _of_loader(
    loader: DataLoader[Any],
    make: Makes,
    batch_size: int,
    seed: int,
    form: Form,
    repeat: bool | None,
    workers: int,
) -> Stream:
    """A DataLoader as it is; where its batches have another number of rows than asked for, one line says so."""
    if workers:
        raise ArgumentError("workers", workers, "a DataLoader has workers of its own", "0, and its num_workers")
    if loader.batch_size is not None and loader.batch_size != batch_size:
        why = f"the DataLoader makes batches of {loader.batch_size} rows"
        raise ArgumentError("batch_size", batch_size, why, f"batch_size={loader.batch_size}")
    stream = not has_rows(loader.dataset)
    keeps_rest = not stream and loader.batch_size is not None and not loader.drop_last
    if keeps_rest and (left := len(loader.dataset) % batch_size):  # type: ignore[arg-type]
        why = f"the last batch of an epoch of the DataLoader has {left} of {batch_size} rows"
        raise ArgumentError("source", MISSING, why, "drop_last=true")
    return Stream(make, batch_size, seed, form, True, not stream if repeat is None else repeat)
