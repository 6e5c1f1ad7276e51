"""The steady step of pipezoo over that of a hand-written script: same model, data, schedule, threads and optimizer.

    python -m benchmarks.step [--schedules 1f1b,zbv] [--turns 200] [--width 512]

    rank 0   | by hand | pipezoo | by hand | pipezoo | ...        in the same processes, step after step in turn,
    rank 1   | by hand | pipezoo | by hand | pipezoo | ...        with a barrier between, so that what else the
                                                                  machine does falls on both alike

The script is ``handwritten.py``, whose step runs under torchrun as well. Two ranks with one thread each, MultiMLP of
width 512, 256 rows in 8 microbatches, SGD. In the second half of the turns pipezoo records its timeline. A step takes
from the barrier to its end on the last rank; pipezoo's has all it does beside the pipeline: batch, heartbeat, finite
check, loss, message to the parent. Ratios, of seconds and of the CPU seconds of both ranks, are medians over the turns
of one step over its neighbour.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipezoo.config.compose import compose, load
from pipezoo.experiment.allowlist import Allowlist

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
WHO = ("by_hand", "ours")
RANKS, ROWS, MICROBATCHES = 2, 256, 8
WARM = 10  # turns of each half that are not counted
Span = tuple[float, float, float]  # began, ended, CPU seconds of this process in between
Times = tuple[float, float]


class TurnTaking:
    """A link that has the hand-written step done before each of pipezoo's, and times both."""

    def __init__(self, channel: Any, build: Any) -> None:
        self._link, self._build, self._step_by_hand = channel, build, None
        self.by_hand: list[Span] = []
        self.ours: list[Span] = []
        self.losses: list[tuple[float, float]] = []
        self._loss: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def begin_step(self, step: int) -> None:
        import torch.distributed as dist

        self._step_by_hand = self._step_by_hand or self._build()
        dist.barrier()
        self._begin()
        self._loss = self._step_by_hand(step)
        self.by_hand.append(self._end())
        dist.barrier()
        self._begin()
        self._link.begin_step(step)

    def end_step(self, step: int, began: float, ended: float, losses: list[float] | None, *more: Any) -> None:
        self._link.end_step(step, began, ended, losses, *more)
        self.ours.append(self._end())
        if losses and self._loss is not None:
            self.losses.append((self._loss, losses[-1]))

    def _begin(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def _end(self) -> Span:
        began, used = self._began
        return began, time.perf_counter(), time.process_time() - used


def run_in_turn(pipeline: Any, rank: int, schedule: str, width: int, channel: Any) -> dict[str, Any]:
    """What ``run_rank`` does, with a hand-written step before each of its own."""
    from benchmarks.handwritten import build
    from pipezoo.runtime.rank import run_rank

    turns = TurnTaking(channel, partial(build, CLASSES[schedule], width, ROWS, MICROBATCHES))
    run_rank(rank, pipeline, turns)  # type: ignore[arg-type]
    return {"by_hand": turns.by_hand, "ours": turns.ours, "losses": turns.losses}


def measure(schedule: str, turns: int, width: int) -> tuple[Any, ...]:
    """``[2 * turns, 2]``, seconds and CPU seconds of each step, by hand and of pipezoo."""
    from pipezoo.runtime.build import build_pipeline
    from pipezoo.runtime.start_method import with_transport
    from pipezoo.supervisor.supervisor import Limits, launch

    stages = RANKS if schedule in SINGLE else 2 * RANKS
    model = ["model=multi_mlp", "split=modules", f"model.d_hid={width}", f"model.n_layers={stages}"]
    sizes = [f"stages={stages}", f"batch_size={ROWS}", f"microbatches={MICROBATCHES}", f"steps={2 * turns}"]
    rest = ["optimizer=sgd", "optimizer.lr=1e-4", "launch.threads=1", "verify=false", f"record_steps={turns}"]
    experiment = load(*compose([*model, *sizes, *rest, f"schedule={schedule}"]), Allowlist())
    with tempfile.TemporaryDirectory() as scratch:
        pipeline = with_transport(build_pipeline(experiment, Path(scratch))[0], experiment, "fork")
        targets = {f"rank {rank}": partial(run_in_turn, pipeline, rank, schedule, width) for rank in range(RANKS)}
        told = list(launch(targets, Limits(120.0, 120.0), Path(scratch) / "log").values())
    for by_hand, ours in (pair for rank in told for pair in rank["losses"]):
        if abs(by_hand - ours) > 1e-5 * abs(by_hand):
            raise SystemExit(f"{schedule}: the losses differ: {by_hand} by hand, {ours} by pipezoo")
    return tuple(np.array([_step(spans) for spans in zip(*(rank[who] for rank in told), strict=True)]) for who in WHO)


def _step(spans: tuple[Span, ...]) -> Times:
    """Seconds from the last rank's start to the last rank's end, and CPU seconds of all ranks."""
    return max(span[1] for span in spans) - max(span[0] for span in spans), sum(span[2] for span in spans)


def row(schedule: str, turns: int, width: int) -> str:
    """One line of the table."""
    by_hand, ours = measure(schedule, turns, width)
    columns = [f"{np.median(by_hand[WARM:], axis=0)[0] * 1e3:.2f} ms"]
    for half in (slice(WARM, turns), slice(turns + WARM, 2 * turns)):
        columns += [f"{ratio:.3f}" for ratio in np.median(ours[half] / by_hand[half], axis=0)]
    return f"| {schedule} | " + " | ".join(columns) + " |"


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.step", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--schedules", default=",".join(CLASSES), help="comma-separated")
    parser.add_argument("--turns", type=int, default=200, help="of each half: not recorded, recorded")
    parser.add_argument("--width", type=int, default=512)
    options = parser.parse_args()
    print("| schedule | by hand | pipezoo | its CPU | pipezoo, recording | its CPU |\n|---|---|---|---|---|---|")
    for schedule in options.schedules.split(","):
        print(row(schedule, options.turns, options.width), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
