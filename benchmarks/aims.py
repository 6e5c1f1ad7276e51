"""What the native executor is to reach, and what it reaches on this machine: a table for the README.

    python -m benchmarks.aims [--turns 1.0] [--only tiny,virtual]

Ratios of seconds, by turns in one run (``turns.py``). The last column is the ratio of CPU seconds, which says more
where others work on the machine. About six minutes on two quiet cores; ``--turns 0.2`` takes a fifth of the turns. The
exit code is 1 where an aim is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import plain, step
from benchmarks.turns import Turns


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    against: str
    aim: str
    measured: str
    met: bool
    cpu: str = ""


def at_most(what: str, against: str, aim: float, measured: float, cpu: float | None = None, unit: str = "") -> Line:
    digits = "{:.0f}" if unit else "{:.3f}"
    told = "" if cpu is None else f"{cpu:.3f}"
    return Line(what, against, f"<= {aim:g}{unit}", digits.format(measured) + unit, measured <= aim, told)


def by_hand(turns: Callable[[int], int]) -> Iterator[Line]:
    """Two ranks beside the hand-written script."""
    script = "torch's class by hand"
    for width, rows, microbatches, aim, count in ((8, 256, 8, 0.3, 150), (2048, 2048, 16, 0.85, 6)):
        took = step.measure("1f1b", width, turns(count), rows, microbatches)
        yield at_most(f"steady step, 1F1B, d={width}", script, aim, took.ratio(), took.ratio(1))
    took = step.measure("1f1b", 512, turns(60))
    yield at_most("steady step, 1F1B, d=512", script, 0.65, took.ratio(), took.ratio(1))
    adds = took.recording_adds() * 100
    yield Line("recording, 1F1B, d=512", "not recording, CPU", "<= 2 %", f"{adds:.1f} %", adds <= 2.0)


def schedules(turns: Callable[[int], int]) -> Iterator[Line]:
    """Each schedule that torch has a class for."""
    took = {name: step.measure(name, 512, turns(20)) for name in step.CLASSES}
    worst = max(took, key=lambda name: took[name].ratio())
    text = f"steady step, the slowest of {len(took)} schedules ({worst}), d=512"
    yield at_most(text, "torch's class by hand", 0.9, took[worst].ratio(), took[worst].ratio(1))


def one_process(turns: Callable[[int], int]) -> Iterator[Line]:
    """Two ranks beside one process."""
    for width, rows, microbatches, aim, count in ((512, 256, 8, 1.5, 40), (2048, 2048, 16, 1.6, 5)):
        faster = 1 / plain.measure("ranks=2", width, 2, rows, microbatches, turns(count)).ratio()
        text = f"two ranks, d={width}, {microbatches} microbatches: times as fast"
        yield Line(text, "one process", f">= {aim:g}", f"{faster:.2f}", faster >= aim)


def virtual(turns: Callable[[int], int]) -> Iterator[Line]:
    """Virtual ranks beside one process."""
    for width, rows, stages, microbatches, aim, count in (
        (1024, 64, 4, 8, 1.03, 8),
        (768, 40, 8, 8, 1.05, 12),
        (512, 32, 8, 16, 1.12, 12),
    ):
        took = plain.measure("launch=virtual", width, stages, rows * microbatches, microbatches, turns(count))
        text = f"virtual ranks, stages of {took.milliseconds() / stages / microbatches:.1f} ms"
        yield at_most(text, "plain accumulation", aim, took.recorded_ratio(), took.recorded_ratio(1))


def tiny(turns: Callable[[int], int]) -> Iterator[Line]:
    """CPU for each microbatch and stage."""
    for where, aim, text in (("ranks=2", 70.0, "two processes"), ("launch=virtual", 20.0, "virtual ranks")):
        took: Turns = plain.measure(where, 8, 2, 256, 64, turns(60))
        what = f"CPU of a microbatch on a stage, {text}, d=8"
        yield at_most(what, "bare autograd", aim, took.cpu_over_other(64 * 2), unit=" us")


GROUPS = {"by_hand": by_hand, "schedules": schedules, "one_process": one_process, "virtual": virtual, "tiny": tiny}


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.aims", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--turns", type=float, default=1.0, help="how many of the usual turns, as a factor")
    parser.add_argument("--only", default=",".join(GROUPS), help=f"of {','.join(GROUPS)}")
    options = parser.parse_args()
    print("| what | over | aim | measured | CPU |\n|---|---|---|---|---|")
    missed = 0
    for name in options.only.split(","):
        for line in GROUPS[name](lambda count: max(2, round(count * options.turns))):
            mark = "" if line.met else " (missed)"
            print(f"| {line.what} | {line.against} | {line.aim} | {line.measured}{mark} | {line.cpu} |", flush=True)
            missed += not line.met
    sys.exit(missed > 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
