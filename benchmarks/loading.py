"""What loading costs a step: rows that wait for a disk, made between two steps, or ahead of time by workers.

    python -m benchmarks.loading                  time of a step over that of a step whose rows are there already
    python -m benchmarks.loading --row-ms 2       rows that take longer

A rank's own loop over its batches, with a step that takes 100 ms. A row sleeps instead of reading, so no core is
taken from anybody. Rounds alternate; medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

import torch
from torch.utils.data import Dataset

from pipezoo.data.dataset import batches
from pipezoo.runtime.feed import opened

WIDTH, ROWS, STEPS, STEP = 256, 64, 12, 0.1


class Slow(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Rows that are there after so many seconds."""

    def __init__(self, seconds: float, rows: int = 4 * ROWS) -> None:
        self.seconds, self.rows = seconds, rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(self.seconds)
        x = torch.full((WIDTH,), index / self.rows)
        return x, x


def seconds_of(row: float, workers: int) -> float:
    """Median seconds from one step to the next; the first two fill what is loaded ahead."""
    found = []
    with opened(batches(ROWS, 0, partial(Slow, row), workers=workers), range(STEPS)) as feed:
        for step in range(STEPS):
            began = time.perf_counter()
            feed(step)
            time.sleep(STEP)
            found.append(time.perf_counter() - began)
    return statistics.median(found[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row-ms", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    row = asked.row_ms / 1000
    cases = {"rows are there": (0.0, 0), "no workers": (row, 0), "one worker": (row, 1), "two workers": (row, 2)}
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(asked.rounds):
        for name, (seconds, workers) in cases.items():
            found[name].append(seconds_of(seconds, workers))
    base = statistics.median(found["rows are there"])
    for name, several in found.items():
        median = statistics.median(several)
        print(f"{name:16} {median * 1000:8.1f} ms a step   {median / base:5.2f}")


if __name__ == "__main__":
    main()
