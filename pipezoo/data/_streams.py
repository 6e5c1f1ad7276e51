"""Batches of what can only be read from its beginning: an IterableDataset, a DataLoader, an iterable of one's own.

A step is where so many batches were read before it. Whoever asks for another step than the next one reads from the
beginning, or skips: a resumed run, the reference. Every reader makes the source anew, and what the source draws is
fixed by (seed, epoch): so all readers read the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from pipezoo.data._random import OwnRandom
from pipezoo.data._samples import Form
from pipezoo.data.batch import Batch
from pipezoo.errors import ArgumentError
from pipezoo.validators import check_int

DRAWN = 0x57AEA3


class DataEndError(ValueError):
    """The data have no batch for a step."""


@dataclass(frozen=True)
class _InTurn:
    """Both, one after the other."""

    first: Callable[[int], Any]
    second: Callable[[int], Any] | None

    def __call__(self, worker: int) -> None:
        self.first(worker)
        if self.second is not None:
            self.second(worker)


@dataclass
class Stream:
    """The function from step to batch.

    Args:
        make: makes the source.
        batch_size: rows of a batch.
        seed: fixes with the epoch what the source draws.
        form: which parts of a sample are inputs and which is the target.
        batched: whether the source gives whole batches; else samples, of which ``batch_size`` make one.
        repeat: whether it begins again where it ends; each time is an epoch.
        workers, prefetch: processes that load ahead, and how many batches each of them
            (:mod:`pipezoo.runtime.feed`).
    """

    make: Callable[[], Any]
    batch_size: int
    seed: int
    form: Form
    batched: bool = False
    repeat: bool = False
    workers: int = 0
    prefetch: int = 2

    def __post_init__(self) -> None:
        check_int("workers", self.workers, 0)
        check_int("prefetch", self.prefetch, 1)
        self._next = 0  # the step that the reader comes to
        self._reader: Iterator[Any] | None = None
        self._last: tuple[int, Batch] | None = None
        self._in_worker: Callable[[int], Any] | None = None

    def begin(self, in_worker: Callable[[int], Any]) -> None:
        """Forget what was read. From here on a DataLoader may start its workers, each of which begins with a call."""
        self._reader, self._last, self._in_worker = None, None, in_worker

    def __call__(self, step: int) -> Batch:
        if self._last is not None and self._last[0] == step:
            return self._last[1]
        if self._reader is None or step < self._next:
            self._reader, self._next = self._raw(), 0
        raw: Any = None
        while self._next <= step:
            try:
                raw = next(self._reader)
            except StopIteration:
                end, self._reader = self._next, None
                raise DataEndError(
                    f"the data end after {end} batches of {self.batch_size} rows, and step {step} asks for another; "
                    f"valid: steps={end}, or data.repeat=true to begin again"
                ) from None
            self._next += 1
        batch = self.form.batch(raw) if self.batched else self.form.batch_of_samples(raw)
        self._last = (step, batch)
        return batch

    def _raw(self) -> Iterator[Any]:
        """What makes a batch each, epoch after epoch: a collated value, or a list of samples."""
        source, epoch = self._made(), 0
        while True:
            random, empty = OwnRandom(self.seed, DRAWN, epoch), True
            for raw in self._epoch(source, epoch, random):
                empty = False
                yield raw
            if empty and not epoch:
                raise ArgumentError("batch_size", self.batch_size, "the data have no whole batch of so many rows")
            if not self.repeat:
                return
            epoch += 1
            if isinstance(source, Iterator):  # a generator is read once
                source = self._made()

    def _made(self) -> Any:
        source = self.make()
        if isinstance(source, DataLoader) and source.num_workers:
            if self._in_worker is not None:
                source.worker_init_fn = _InTurn(self._in_worker, source.worker_init_fn)
            else:  # who only looks at the first batch starts no process
                source.num_workers, source.timeout = 0, 0
        return source

    def _epoch(self, source: Any, epoch: int, random: OwnRandom) -> Iterator[Any]:
        samples: list[Any] = []
        with random.in_use():
            for part in (source, getattr(source, "dataset", None), getattr(source, "sampler", None)):
                if callable(told := getattr(part, "set_epoch", None)):
                    told(epoch)
            reader = iter(source)
        while True:
            with random.in_use():
                try:
                    item = next(reader)
                except StopIteration:
                    return
            if self.batched:
                yield item
                continue
            samples.append(item)
            if len(samples) == self.batch_size:
                yield samples
                samples = []
