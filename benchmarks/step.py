"""The steady step of pipezoo over that of a hand-written script: same model, data, schedule, threads and optimizer.

    python -m benchmarks.step [--schedules 1f1b,zbv] [--turns 40] [--width 512] [--rows 256] [--microbatches 8]

The script is ``handwritten.py``, whose step runs under torchrun as well. Two ranks with one thread each, MultiMLP with
a layer a stage, SGD. ``turns.py`` says how the two take turns, and what a step is.
"""

from __future__ import annotations

import argparse
import os
from functools import partial

from benchmarks.turns import Step, Turns, alternate, words_of
from pipezoo.data.batch import Batch

CLASSES = {  # our schedules, torch's classes
    "gpipe": "ScheduleGPipe",
    "1f1b": "Schedule1F1B",
    "interleaved_1f1b": "ScheduleInterleaved1F1B",
    "looped_bfs": "ScheduleLoopedBFS",
    "interleaved_zero_bubble": "ScheduleInterleavedZeroBubble",
    "zbv": "ScheduleZBVZeroBubble",
    "dualpipev": "ScheduleDualPipeV",
}
SINGLE = ("gpipe", "1f1b")  # one stage a rank


def by_hand(schedule: str, width: int, microbatches: int, process: int, batch: Batch) -> Step:
    """The step of the hand-written script, in one of its two processes."""
    from benchmarks.handwritten import build

    return partial(build(CLASSES[schedule], width, microbatches), batch)


def measure(schedule: str, width: int, turns: int, rows: int = 256, microbatches: int = 8) -> Turns:
    """Two ranks of pipezoo, and two by hand."""
    stages = 2 if schedule in SINGLE else 4
    words = [*words_of(schedule, width, stages, rows, microbatches), "ranks=2"]
    return alternate(words, partial(by_hand, schedule, width, microbatches), turns)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.step", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--schedules", default=",".join(CLASSES), help="comma-separated")
    parser.add_argument("--turns", type=int, default=40, help="of each kind: not recorded, recorded")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rows", type=int, default=256, help="of a batch")
    parser.add_argument("--microbatches", type=int, default=8)
    options = parser.parse_args()
    print("| schedule | by hand | pipezoo | its CPU | pipezoo, recording | its CPU |\n|---|---|---|---|---|---|")
    for schedule in options.schedules.split(","):
        turns = measure(schedule, options.width, options.turns, options.rows, options.microbatches)
        ratios = [turns.ratio(0), turns.ratio(1), turns.recorded_ratio(0), turns.recorded_ratio(1)]
        columns = [f"{turns.milliseconds():.2f} ms", *(f"{ratio:.3f}" for ratio in ratios)]
        print(f"| {schedule} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
