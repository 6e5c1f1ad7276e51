"""Batches of a data set whose rows have numbers: which rows a step has follows from (seed, epoch) and the step alone.

    epoch 0    7 2 0 | 5 1 6 | 3 4 .      10 rows, batches of 3: three steps an epoch; what is left over waits
    epoch 1    4 0 8 | 2 9 7 | ...        for another epoch, whose order is another one

So nothing needs to be saved to go on: a resumed run asks for its next step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from pipezoo.data._random import OwnRandom
from pipezoo.data.batch import Batch, generator
from pipezoo.errors import ArgumentError
from pipezoo.validators import check_bool, check_int

ORDER, DRAWN = 0x0E90C4, 0xD4A3  # tell the streams of an epoch's order and of what a data set draws from others


@dataclass
class Rows:
    """The function from step to batch.

    Args:
        num_rows: of the data set.
        batch_size: rows of a batch.
        seed: of the order, and of what the data set draws itself.
        fetch: makes a batch of the rows with these numbers.
        shuffle: whether each epoch has an order of its own; else that of the data set.
        draws: whether ``fetch`` runs code that may draw random numbers.
        workers, prefetch: processes that load ahead, and how many batches each of them
            (:mod:`pipezoo.runtime.feed`).
    """

    num_rows: int
    batch_size: int
    seed: int
    fetch: Callable[[list[int]], Batch]
    shuffle: bool = True
    draws: bool = False
    workers: int = 0
    prefetch: int = 2
    _epoch: int = -1
    _order: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def __post_init__(self) -> None:
        check_int("batch_size", self.batch_size, 1)
        check_bool("shuffle", self.shuffle)
        check_int("workers", self.workers, 0)
        check_int("prefetch", self.prefetch, 1)
        if self.num_rows < self.batch_size:
            what = f"a batch has {self.batch_size} rows, and the data have {self.num_rows}"
            raise ArgumentError("batch_size", self.batch_size, what, f"1..{self.num_rows}" if self.num_rows else None)

    @property
    def steps_per_epoch(self) -> int:
        return self.num_rows // self.batch_size

    def indices(self, step: int) -> list[int]:
        """The numbers of the rows of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        begin = place * self.batch_size
        if not self.shuffle:
            return list(range(begin, begin + self.batch_size))
        if epoch != self._epoch:
            self._order = torch.randperm(self.num_rows, generator=generator(self.seed, ORDER, epoch))
            self._epoch = epoch
        found: list[int] = self._order[begin : begin + self.batch_size].tolist()
        return found

    def __call__(self, step: int) -> Batch:
        if not self.draws:
            return self.fetch(self.indices(step))
        with OwnRandom(self.seed, DRAWN, step).in_use():
            return self.fetch(self.indices(step))
