"""The batches of a run, one step after the other: loaded when they are asked for, or ahead of time by processes.

    workers=0    the rank makes its batch between two steps
    workers=2    worker 0 makes those of steps 0, 2, 4 ...    worker 1 those of 1, 3, 5 ...

A source is a function of the step, so it does not matter who calls it: no number depends on the workers. A worker ends
with its rank, however that ends. What goes wrong in one is an error of the rank, with the step and the place.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import Parameter, isclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from pipezoo.data import dataset
from pipezoo.data.batch import Batch
from pipezoo.errors import PipezooError, first_line
from pipezoo.experiment.component import Component
from pipezoo.supervisor.processes import die_with_parent

Source = Callable[[int], Batch]


class DataError(RuntimeError):
    """The data have no batch for a step, or fail to make it."""


@contextmanager
def opened(source: Source, steps: range) -> Iterator[Source]:
    """The source for these steps, in their order; with its workers, if it wants any.

    The function that is given raises DataError.
    """
    begin(source)
    workers = int(getattr(source, "workers", 0))
    if not workers or not len(steps):
        yield lambda step: made(source, step)
        begin(source)
        return
    loader = DataLoader(
        _ByStep(source),
        batch_size=None,
        sampler=steps,
        num_workers=min(workers, len(steps)),
        collate_fn=_as_it_is,
        prefetch_factor=int(getattr(source, "prefetch", 2)),
        worker_init_fn=_Begin(os.getpid()),
        generator=torch.Generator(),  # so that no number is drawn from the rank's
        multiprocessing_context="fork" if hasattr(os, "fork") else None,
    )
    reader = iter(loader)

    def take(step: int) -> Batch:
        try:
            found = next(reader)
        except RuntimeError as error:  # one that was killed says nothing itself
            raise DataError(f"data: the batch of step {step}: {_first_words(error)}") from None
        if isinstance(found, _Failure):
            print(found.trace, file=sys.stderr)
            raise DataError(found.text)
        batch: Batch = found
        return batch

    yield take  # the workers end with the reader, which nobody holds after this


def source_of(data: Component, batch_size: int, seed: int) -> Source:
    """The function from step to batch that a part of a config stands for, be it a source or a data set.

    Raises:
        ConfigError: it is neither, or one with less than a batch.
    """
    given = {name: value for name, value in (("batch_size", batch_size), ("seed", seed)) if _takes(data, name)}
    found = data(**given)
    if callable(found) and not isinstance(found, (Dataset, Iterable)):
        source: Source = found
        return source
    first = [found]
    try:
        return dataset.batches(batch_size, seed, lambda: first.pop() if first else data(**given))
    except Exception as error:
        raise data.reword(error) from error


def _takes(data: Component, name: str) -> bool:
    """Whether a part has an argument of this name. One that has any may be a class that hands them on."""
    kinds = {parameter.kind for parameter in data.parameters.values()}
    return data.takes(name) or (Parameter.VAR_KEYWORD in kinds and not isclass(data.function))


def begin(source: Source) -> None:
    """This process reads from here on: what its parent had open is forgotten, and a DataLoader may have workers."""
    if callable(told := getattr(source, "begin", None)):
        told(_Begin(os.getpid()))


def made(source: Source, step: int) -> Batch:
    """The batch of a step. Raises DataError: whatever the source raises, in a line."""
    try:
        return checked(source(step))
    except PipezooError:
        raise
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        raise DataError(_words(step, error)) from None


def checked(found: Any) -> Batch:
    """``found`` if it is a batch; else raises ValueError."""
    if isinstance(found, Batch):
        return found
    kind = type(found).__name__
    raise ValueError(
        f"it is of type {kind}; valid: pipezoo.data.batch.Batch(args=(inputs,), kwargs={{}}, target=target)"
    )


@dataclass(frozen=True)
class _Failure:
    text: str
    trace: str


class _ByStep(Dataset[Any]):
    """A source as torch's loader asks for it. What fails is handed over, not raised: torch would drown it in words."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getitem__(self, step: int) -> Batch | _Failure:
        try:
            return self._source(step)
        except Exception as error:
            return _Failure(_words(step, error), traceback.format_exc())


@dataclass(frozen=True)
class _Begin:
    """What a worker does first."""

    parent: int

    def __call__(self, worker: int) -> None:
        die_with_parent(self.parent)


def _as_it_is(value: Any) -> Any:
    return value


def _words(step: int, error: Exception) -> str:
    """``data: the batch of step 3, row 17: ValueError: ... (mine.py:12)``"""
    culprit = getattr(error, "culprit", "")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    own = isinstance(error, ValueError) and frames and f"{os.sep}pipezoo{os.sep}data{os.sep}" in frames[-1].filename
    text = " ".join(str(error).split()) if own else f"{first_line(error)}{place}"
    return f"data: the batch of step {step}{f', {culprit}' if culprit else ''}: {text}"


def _first_words(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
