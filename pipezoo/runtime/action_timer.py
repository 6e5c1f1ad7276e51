"""When each action ran on this process: a host clock for the CPU, events on the stream for a GPU."""

from __future__ import annotations

from time import perf_counter, thread_time
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipezoo.schedule.action import Op

# [num_spans, 7]: stage, op, microbatch, start, end (seconds of time.perf_counter), and what the thread of the rank had
# computed by then (seconds of time.thread_time), NaN where that says nothing
Spans = NDArray[np.float64]
COLUMNS = 7
NONE: Spans = np.empty((0, COLUMNS))


def without_clocks(spans: NDArray[np.float64]) -> Spans:
    """``[num_spans, 5]`` spans of a device that is not this thread."""
    return np.pad(spans, ((0, 0), (0, COLUMNS - spans.shape[1])), constant_values=np.nan)


class Recorder(Protocol):
    """``end(stage, op, microbatch, begin())`` notes one span; ``extend`` moves the last one's end to now."""

    def begin(self) -> object: ...

    def end(self, stage: int, op: Op, microbatch: int, began: object) -> None: ...

    def extend(self) -> None: ...

    def take(self) -> Spans:
        """All spans since the last call, in the order in which they ran."""
        ...


class HostRecorder:
    """The clock of this machine, which all its processes share, and the one of this thread."""

    def __init__(self) -> None:
        self._spans: list[float] = []  # end to end: a list for each would have Python look for garbage every few steps

    def begin(self) -> tuple[float, float]:
        return thread_time(), perf_counter()

    def end(self, stage: int, op: Op, microbatch: int, began: object) -> None:
        ended, computed = perf_counter(), thread_time()
        assert isinstance(began, tuple)
        had_computed, start = began
        self._spans += (stage, op, microbatch, start, ended, had_computed, computed)

    def extend(self) -> None:
        self._spans[-3], self._spans[-1] = perf_counter(), thread_time()

    def take(self) -> Spans:
        if not self._spans:
            return NONE
        spans, self._spans = self._spans, []
        return np.fromiter(spans, np.float64, len(spans)).reshape(-1, COLUMNS)


class NoRecorder:
    """For the steps that nobody will look at."""

    def begin(self) -> None:
        return None

    def end(self, stage: int, op: Op, microbatch: int, began: object) -> None:
        pass

    def extend(self) -> None:
        pass

    def take(self) -> Spans:
        return NONE


class CudaRecorder:
    """Events on the current stream: what the GPU did, not when the host asked for it.

    Events know only the time between each other; one of them is tied to the host's clock while the device is idle.
    """

    def __init__(self) -> None:
        self._spans: list[tuple[int, Op, int, torch.cuda.Event, torch.cuda.Event]] = []
        torch.cuda.synchronize()
        self._zero = self.begin()
        self._zero.synchronize()
        self._host = perf_counter()

    def begin(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def end(self, stage: int, op: Op, microbatch: int, began: object) -> None:
        assert isinstance(began, torch.cuda.Event)
        self._spans.append((stage, op, microbatch, began, self.begin()))

    def extend(self) -> None:
        self._spans[-1] = (*self._spans[-1][:4], self.begin())

    def take(self) -> Spans:
        torch.cuda.synchronize()
        rows = [
            [stage, op, microbatch, *(self._host + self._zero.elapsed_time(event) / 1e3 for event in (start, end))]
            for stage, op, microbatch, start, end in self._spans
        ]
        self._spans = []
        return without_clocks(np.array(rows, dtype=np.float64).reshape(-1, 5))


def recorder_for(device: torch.device) -> Recorder:
    return CudaRecorder() if device.type == "cuda" else HostRecorder()
