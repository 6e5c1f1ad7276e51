"""Data sets of the tests, each a `_target_`: rows that draw, streams, loaders, and what is wrong with some of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

WIDTH = 8


class Rows(Dataset):
    """Row i is full of i; with noise from three generators."""

    def __init__(self, rows: int = 48, bad: int | None = None, odd: int | None = None, noise: bool = False) -> None:
        self.rows, self.bad, self.odd, self.noise = rows, bad, odd, noise

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if index == self.bad:
            raise KeyError("no such file")
        if self.bad is not None and self.noise and get_worker_info() is not None:
            raise KeyError("only in a worker")
        x = torch.full((WIDTH + (index == self.odd),), index / self.rows)
        noise = torch.randn(WIDTH) + random.random() + np.random.rand() if self.noise else torch.zeros(WIDTH)
        return x + noise if index != self.odd else x, torch.arange(WIDTH) / WIDTH


class Stream(IterableDataset):
    def __init__(self, rows: int = 48) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for index in range(self.rows):
            yield torch.randn(WIDTH), torch.full((WIDTH,), index / self.rows)


def generated(rows: int = 48) -> Iterator[dict[str, torch.Tensor]]:
    for index in range(rows):
        yield {"input": torch.full((WIDTH,), index / rows), "labels": torch.arange(WIDTH) / WIDTH}


def loader(batch_size: int = 8, workers: int = 0, drop_last: bool = True, **rows: Any) -> DataLoader:
    return DataLoader(Rows(**rows), batch_size, shuffle=True, num_workers=workers, drop_last=drop_last)


def number() -> int:
    return 3
