"""Whether what-if tells the truth: the predicted best schedule of a measured run, run and held against its error bar.

    python -m benchmarks.what_if [--repeats 3]

Every row trains one configuration, takes the fastest other schedule of which nothing is assumed, and trains that, in
turn. The last column says whether its median step is within the error bar that was stated.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pipezoo.explain.alternatives import Alternative, Measured, alternatives
from pipezoo.explain.changes import of_alternative
from pipezoo.results.result import Result
from pipezoo.results.run import read_run
from pipezoo.results.schedule_file import schedule_file
from pipezoo.schedule.schedule import Schedule

SIZES = "model=multi_mlp model.d_hid=768 batch_size=256 steps=9 verify=false"
ROWS = [
    "schedule=zb_h1 ranks=2 microbatches=4",
    "schedule=zb_h1 ranks=2 microbatches=8",
    "schedule=zbv ranks=2 microbatches=4",
    "schedule=zbv ranks=2 microbatches=8",
    "schedule=interleaved_zero_bubble ranks=2 stages=4 microbatches=8",
    "schedule=gpipe ranks=2 microbatches=8",
    "schedule=interleaved_1f1b ranks=2 microbatches=8",
    "schedule=v_half ranks=2 microbatches=8",
    "schedule=interleaved_1f1b ranks=4 microbatches=8 launch=virtual",
    "schedule=zb_h1 ranks=4 microbatches=8 launch=virtual",
]


def trained(words: list[str], folder: Path) -> Path:
    command = [sys.executable, "-m", "pipezoo", *words, f"hydra.run.dir={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def predicted_best(folder: Path) -> tuple[Alternative, list[str]]:
    """The fastest other schedule of which nothing is assumed, and the words that run it."""
    result, file = Result.of(folder), schedule_file(folder)
    measured = Measured.of(result)
    assert measured is not None
    assert file is not None
    found = alternatives(Schedule.from_csv(file, name=str(result.schedule)).compute_only(), measured)
    best = next(one for one in found if one.choice and not one.assumed)
    words = shlex.split(of_alternative(read_run(folder), best))[3:]
    return best, [word for word in words if not word.startswith("hydra.")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs of each row; medians are compared")
    repeats = parser.parse_args().repeats
    print("| the run | predicted best | predicted | error bar | measured | within |")
    print("|---|---|---|---|---|---|")
    kept = 0
    for words in ROWS:
        with tempfile.TemporaryDirectory() as scratch:
            runs = [trained([*SIZES.split(), *words.split()], Path(scratch) / f"run{i}") for i in range(repeats)]
            middle = sorted(runs, key=lambda folder: Result.of(folder).step_seconds.median)[repeats // 2]  # type: ignore[union-attr]
            best, other = predicted_best(middle)
            found = [Result.of(trained(other, Path(scratch) / f"other{i}")).step_seconds for i in range(repeats)]
        seen = statistics.median(one.median for one in found)  # type: ignore[union-attr]
        within = abs(seen - best.step) <= best.error * best.step
        kept += within
        stated = f"{best.step * 1e3:.1f} ms | {100 * best.error:.0f} %"
        print(f"| {words} | {best.name} | {stated} | {seen * 1e3:.1f} ms | {'yes' if within else 'no'} |", flush=True)
    print(f"\n{kept} of {len(ROWS)} are within their error bars.")


if __name__ == "__main__":
    main()
