"""What split=replay costs: cutting and proving a model, and a stage beside the same stage written by hand.

    python -m benchmarks.replayed --width 1024 --depth 16

A row of blocks (norm, MLP of four widths, residual). Processor time of this process; medians of alternating turns.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from pipezoo.splitters.replay import split


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.up(self.norm(x)).relu())


class Model(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def both_ways(module: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
    module(x.clone().requires_grad_()).sum().backward()  # type: ignore[no-untyped-call]


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--turns", type=int, default=20)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model, x = Model(asked.width, asked.depth), torch.randn(asked.rows, asked.width)
    size = sum(p.numel() for p in model.parameters()) * 4 / 2**30
    before = peak()
    cutting = seconds(lambda: split(model, 4, (x,)))
    grown = peak() - before
    step = statistics.median(seconds(lambda: both_ways(model, x)) for _ in range(3))
    print(f"model {size:.2f} GiB: cut and proved in {cutting:.2f} s, {cutting / step:.2f} of a forward and backward")
    print(f"memory grew by {grown:.2f} GiB, {grown / size:.2f} of the model")
    model.zero_grad()
    replayed = split(model, 4, (x,))[1]
    by_hand = nn.Sequential(*model.blocks[asked.depth // 4 : asked.depth // 2])
    turns = [
        (seconds(lambda: both_ways(replayed, x)), seconds(lambda: both_ways(by_hand, x))) for _ in range(asked.turns)
    ]
    ratio = statistics.median(ours for ours, _ in turns) / statistics.median(theirs for _, theirs in turns)
    print(f"a stage forwards and backwards: {ratio:.3f} of the same stage written by hand")


if __name__ == "__main__":
    main()
