"""What launch=virtual costs over plain gradient accumulation of the same microbatches on one device.

    python -m benchmarks.virtual [--turns 8]

Both train the same model on the same batch with the same optimizer in one process with one thread; the plain loop knows
no stages. Every step of virtual ranks is recorded. ``turns.py`` says how the two take turns, and what a step is.
"""

from __future__ import annotations

import argparse
import os

from benchmarks.plain import measure

ROWS = [  # width, rows of a microbatch, stages, microbatches
    (1024, 64, 4, 8),
    (768, 40, 8, 8),
    (512, 32, 8, 16),
    (64, 4, 8, 16),
]


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.virtual", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--turns", type=int, default=8)
    turns = parser.parse_args().turns
    print("| width | rows | stages | microbatches | F + B of a stage | plain step | virtual step over it | its CPU |")
    print("|---|---|---|---|---|---|---|---|")
    for width, rows, stages, microbatches in ROWS:
        took = measure("launch=virtual", width, stages, rows * microbatches, microbatches, turns)
        columns = [f"{took.milliseconds() / stages / microbatches:.2f} ms", f"{took.milliseconds():.1f} ms"]
        columns += [f"{took.recorded_ratio(0):.3f}", f"{took.recorded_ratio(1):.3f}"]
        print(f"| {width} | {rows} | {stages} | {microbatches} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
