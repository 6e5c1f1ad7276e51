"""What random numbers by counter cost: CPU time of forward and backward of a GPT with dropout, with and without.

python -m benchmarks.draws --width 256
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=256, help="features of a position")
    parser.add_argument("--rows", type=int, default=4, help="of a microbatch")
    parser.add_argument("--turns", type=int, default=40)
    asked = parser.parse_args()

    import torch

    from pipezoo.models import GPT
    from pipezoo.runtime.draws import DRAWING, Draws

    torch.set_num_threads(1)
    ids = torch.randint(0, 256, (asked.rows, 64))
    plain, counted = (GPT(width=asked.width, dropout=0.1) for _ in range(2))
    draws = Draws(0, DRAWING)
    draws.follow(counted.named_modules())

    def as_torch_has_it() -> None:
        plain(ids).sum().backward()

    def by_counter() -> None:
        with draws.at(0):
            loss = counted(ids).sum()
        with draws.again(0):
            loss.backward()

    ratios, times = [], []
    for _ in range(asked.turns):
        one, other = _seconds(as_torch_has_it), _seconds(by_counter)
        ratios.append(other / one)
        times.append(one)
    print(
        f"width {asked.width}, {asked.rows} rows of 64: {statistics.median(times) * 1e3:.2f} ms of CPU, "
        f"by counter {statistics.median(ratios):.3f} of that (median of {asked.turns} turns)"
    )


def _seconds(call: Callable[[], None]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


if __name__ == "__main__":
    main()
