"""Two ways to do a training step, in turn and in the same processes, so that what else the machine does meets both.

    rank 0   | other | pipezoo | other | pipezoo, recording | other | pipezoo | ...
    rank 1   | other | pipezoo | other | pipezoo, recording | other | pipezoo | ...      with a barrier between

A step takes from the last rank's start to the last rank's end. pipezoo's has all that it does beside the pipeline:
batch, heartbeat, finite check, optimizer, loss, message to the parent. Ratios are medians over the turns of one step
over its neighbour. CPU seconds are those of all ranks, user and system, threads included.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipezoo.config.compose import compose, load
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.runtime.pipeline import Pipeline

WARM = 6  # turns that are not counted
Step = Callable[[int], float | None]  # does the step of this number, and returns its loss on one of the ranks
Build = Callable[[int], Step]  # for a rank, in its process
Span = tuple[float, float, float]  # began, ended, CPU seconds of this process in between


class Alternating(Pipeline):
    """A pipeline that records every other step."""

    def records(self, step: int) -> bool:
        return step % 2 == 1


class TurnTaking:
    """A channel that has the other step done before each of pipezoo's, and times both."""

    def __init__(self, channel: Any, step: Step) -> None:
        self._link, self._other_step = channel, step
        self.other: list[Span] = []
        self.ours: list[Span] = []
        self.losses: list[tuple[float | None, float | None]] = []
        self._loss: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def begin_step(self, step: int) -> None:
        import torch.distributed as dist

        dist.barrier()
        self._begin()
        self._loss = self._other_step(step)
        self.other.append(self._end())
        dist.barrier()
        self._begin()
        self._link.begin_step(step)

    def end_step(self, step: int, began: float, ended: float, losses: list[float] | None) -> None:
        self._link.end_step(step, began, ended, losses)
        self.ours.append(self._end())
        self.losses.append((self._loss, losses[-1] if losses else None))

    def _begin(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def _end(self) -> Span:
        began, used = self._began
        return began, time.perf_counter(), time.process_time() - used


class LateBuild:
    """A step that is built when the ranks have met, for it may want their process group."""

    def __init__(self, build: Build, rank: int) -> None:
        self._build, self._rank = build, rank
        self._step: Step | None = None

    def __call__(self, number: int) -> float | None:
        self._step = self._step or self._build(self._rank)
        return self._step(number)


def run_in_turn(build: Build, rank: int, pipeline: Pipeline, channel: Any) -> dict[str, Any]:
    """What ``run_rank`` does, with another step before each of its own."""
    from pipezoo.runtime.rank import run_rank

    turns = TurnTaking(channel, LateBuild(build, rank))
    run_rank(rank, Alternating(**vars(pipeline)), turns)  # type: ignore[arg-type]
    return {"other": turns.other, "ours": turns.ours, "losses": turns.losses}


@dataclass(frozen=True)
class Turns:
    """``[turns, 2]``: seconds and CPU seconds of each step, of the other way, of pipezoo, of pipezoo recording."""

    other: NDArray[np.float64]
    ours: NDArray[np.float64]
    recording: NDArray[np.float64]
    other_beside_recording: NDArray[np.float64]

    def ratio(self, what: int = 0) -> float:
        """pipezoo's step over the other; ``what``: 0 for seconds, 1 for CPU seconds."""
        return float(np.median(self.ours[:, what] / self.other[:, what]))

    def recording_ratio(self, what: int = 0) -> float:
        return float(np.median(self.recording[:, what] / self.other_beside_recording[:, what]))

    def recording_adds(self) -> float:
        """What recording adds to a step's CPU seconds, as a share of them."""
        return float(np.median(self.recording[:, 1] / self.ours[:, 1])) - 1.0

    def milliseconds(self) -> tuple[float, float]:
        """Medians: of the other way, of pipezoo."""
        return float(np.median(self.other[:, 0])) * 1e3, float(np.median(self.ours[:, 0])) * 1e3


def alternate(words: Sequence[str], build: Build, turns: int) -> Turns:
    """``turns`` of each kind of the run that ``words`` describe, each after a step of the other way.

    Raises:
        SystemExit: the two do not compute the same losses.
    """
    from pipezoo.runtime.build import build_pipeline
    from pipezoo.runtime.start_method import with_transport
    from pipezoo.supervisor.supervisor import Limits, launch

    steps = 2 * (turns + WARM)
    always = [f"steps={steps}", "record_steps=1", "launch.threads=1", "verify=false"]
    experiment = load(*compose([*words, *always]), Allowlist())
    with tempfile.TemporaryDirectory() as scratch:
        pipeline = with_transport(build_pipeline(experiment, Path(scratch))[0], experiment, "fork")
        names = experiment.launch.names(pipeline.num_processes)
        targets = {name: partial(run_in_turn, build, rank, pipeline) for rank, name in enumerate(names)}
        told = list(launch(targets, Limits(120.0, 120.0), Path(scratch) / "log").values())
    _check_losses(words, [rank["losses"] for rank in told])
    other, ours = (_steps([rank[who] for rank in told])[2 * WARM :] for who in ("other", "ours"))
    return Turns(other[::2], ours[::2], ours[1::2], other[1::2])


def _steps(spans: Sequence[Sequence[Span]]) -> NDArray[np.float64]:
    """From the last rank's start to the last rank's end, and the CPU of all."""
    return np.array(
        [
            (max(end for _, end, _ in step) - max(began for began, _, _ in step), sum(used for _, _, used in step))
            for step in zip(*spans, strict=True)
        ]
    )


def _check_losses(words: Sequence[str], losses: Sequence[Sequence[tuple[float | None, float | None]]]) -> None:
    for step in zip(*losses, strict=True):
        other = next(loss for loss, _ in step if loss is not None)
        ours = next(loss for _, loss in step if loss is not None)
        if abs(other - ours) > 1e-5 * abs(other):
            raise SystemExit(f"{' '.join(words)}: the losses differ: {other} the other way, {ours} by pipezoo")


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))
