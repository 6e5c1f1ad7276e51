"""Two ways to do a training step, in turn, so that what else the machine does meets both.

    other 0   | step |         | step |                    | step |            processes of their own,
    other 1   | step |         | step |                    | step |            as one would start them
    rank 0           | step |         | step, recorded |          | step |
    rank 1           | step |         | step, recorded |          | step |     ranks of pipezoo

While one side steps, the other sleeps. A step takes from its last process's start to its last process's end. pipezoo's
has all that it does beside the pipeline: heartbeat, finite check, optimizer, losses, message to the parent. The batch
is made once for both. Ratios are medians over the turns of one step over the other's just before. CPU seconds are those
of all processes of a side, user and system, threads included.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipezoo.config.compose import compose, load
from pipezoo.data.batch import Batch
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.runtime.pipeline import Pipeline

WARM = 3  # turns that are not counted
Step = Callable[[], float | None]  # does a step, and returns its loss on one of the processes
Build = Callable[[int, Batch], Step]  # for a process, in this process, with the batch of all steps
Span = tuple[float, float, float]  # began, ended, CPU seconds of this process in between


class Other:
    """The other way, in as many processes as the pipeline has. Each steps when the rank beside it says so."""

    def __init__(self, build: Build, size: int, steps: int, batch: Batch, scratch: Path) -> None:
        self._build, self._size, self._steps, self._batch, self._scratch = build, size, steps, batch, scratch
        context = multiprocessing.get_context("fork")
        self._go, self._done = ([context.Semaphore(0) for _ in range(size)] for _ in range(2))
        self._told = [context.Pipe(duplex=False) for _ in range(size)]
        self._processes = [context.Process(target=self._run, args=(place,), daemon=True) for place in range(size)]

    def start(self) -> None:
        for process in self._processes:
            process.start()

    def step(self, place: int) -> None:
        """Have the process at ``place`` do a step; returns when it is done."""
        self._go[place].release()
        self._done[place].acquire()

    def end(self) -> list[list[tuple[Span, float | None]]]:
        """What each process measured, and the loss it found, step by step."""
        return [reader.recv() for reader, _ in self._told]

    def kill(self) -> None:
        for process in self._processes:
            process.kill()

    def _run(self, place: int) -> None:
        import torch

        from pipezoo.supervisor.process_group import join_process_group

        torch.set_num_threads(1)
        join_process_group(place, self._size, self._scratch / "others", torch.device("cpu"), 600.0)
        step = self._build(place, self._batch)
        measured: list[tuple[Span, float | None]] = []
        for _ in range(self._steps):
            self._go[place].acquire()
            torch.distributed.barrier()
            began, used = time.perf_counter(), time.process_time()
            loss = step()
            measured.append(((began, time.perf_counter(), time.process_time() - used), loss))
            self._done[place].release()
        self._told[place][1].send(measured)


class Alternating(Pipeline):
    """A pipeline that records every other step."""

    def records(self, step: int) -> bool:
        return step % 2 == 1


class TurnTaking:
    """A channel that has the other step done before each of pipezoo's, and times pipezoo's."""

    def __init__(self, channel: Any, rank: int, other: Other) -> None:
        self._link, self._rank, self._other = channel, rank, other
        self.spans: list[Span] = []
        self.losses: list[float | None] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def begin_step(self, step: int) -> None:
        import torch.distributed as dist

        dist.barrier()
        self._other.step(self._rank)
        dist.barrier()
        self._began = time.perf_counter(), time.process_time()
        self._link.begin_step(step)

    def end_step(self, *told: Any) -> None:
        self._link.end_step(*told)
        began, used = self._began
        self.spans.append((began, time.perf_counter(), time.process_time() - used))
        losses = told[3]
        self.losses.append(losses[-1] if losses else None)


def run_in_turn(other: Other, rank: int, pipeline: Pipeline, channel: Any) -> dict[str, Any]:
    """What ``run_rank`` does, with another step before each of its own."""
    from pipezoo.runtime.rank import run_rank

    turns = TurnTaking(channel, rank, other)
    run_rank(rank, Alternating(**vars(pipeline)), turns)  # type: ignore[arg-type]
    return {"spans": turns.spans, "losses": turns.losses}


@dataclass(frozen=True)
class Turns:
    """``[turns, 2]``: seconds and CPU seconds of each step. Those of the other way come twice: before a step of pipezoo
    that is not recorded, and before one that is."""

    other: NDArray[np.float64]
    ours: NDArray[np.float64]
    other_then: NDArray[np.float64]
    recorded: NDArray[np.float64]

    def ratio(self, what: int = 0) -> float:
        """pipezoo's step over the other; ``what``: 0 for seconds, 1 for CPU seconds."""
        return float(np.median(self.ours[:, what] / self.other[:, what]))

    def recorded_ratio(self, what: int = 0) -> float:
        return float(np.median(self.recorded[:, what] / self.other_then[:, what]))

    def recording_adds(self) -> float:
        """The share of a step's CPU seconds by which recording makes it longer."""
        return float(np.median(self.recorded[:, 1]) / np.median(self.ours[:, 1])) - 1.0

    def cpu_over_other(self, pieces: int) -> float:
        """CPU microseconds that pipezoo takes more, a piece of the step."""
        return float(np.median(self.ours[:, 1] - self.other[:, 1])) / pieces * 1e6

    def milliseconds(self) -> float:
        """Median of the other way."""
        return float(np.median(self.other[:, 0])) * 1e3


def words_of(schedule: str, width: int, layers: int, rows: int, microbatches: int) -> list[str]:
    """A run of a stack of perceptrons, a layer a stage, on the command line."""
    model = ["model=multi_mlp", "split=modules", f"model.d_hid={width}", f"model.n_layers={layers}"]
    sizes = [f"stages={layers}", f"batch_size={rows}", f"microbatches={microbatches}"]
    return [*model, *sizes, f"schedule={schedule}", "optimizer=sgd", "optimizer.lr=1e-4"]


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
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        pipeline = with_transport(build_pipeline(experiment, scratch)[0], experiment, "fork")
        batch = pipeline.batch(0)
        pipeline = replace(pipeline, batch=lambda step: batch)
        other = Other(build, pipeline.num_processes, steps, batch, scratch)
        names = experiment.launch.names(pipeline.num_processes)
        targets = {name: partial(run_in_turn, other, rank, pipeline) for rank, name in enumerate(names)}
        other.start()
        try:
            told = list(launch(targets, Limits(300.0, 300.0), scratch / "log").values())
            measured = other.end()
        finally:
            other.kill()
    _check_losses(words, [[loss for _, loss in place] for place in measured], [rank["losses"] for rank in told])
    others = _steps([[span for span, _ in place] for place in measured])[2 * WARM :]
    ours = _steps([rank["spans"] for rank in told])[2 * WARM :]
    return Turns(others[::2], ours[::2], others[1::2], ours[1::2])


def _steps(spans: Sequence[Sequence[Span]]) -> NDArray[np.float64]:
    """From the last process's start to the last one's end, and the CPU of all."""
    return np.array(
        [
            (max(end for _, end, _ in step) - max(began for began, _, _ in step), sum(used for _, _, used in step))
            for step in zip(*spans, strict=True)
        ]
    )


def _check_losses(words: Sequence[str], other: Sequence[Sequence[Any]], ours: Sequence[Sequence[Any]]) -> None:
    for theirs, own in zip(zip(*other, strict=True), zip(*ours, strict=True), strict=True):
        a, b = (next(loss for loss in losses if loss is not None) for losses in (theirs, own))
        if abs(a - b) > 1e-5 * abs(a):
            raise SystemExit(f"{' '.join(words)}: the losses differ: {a} the other way, {b} by pipezoo")
