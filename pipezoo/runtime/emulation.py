"""Ranks that take as long as a cost says, with real messages between them (``launch.emulate``): many on few cores.

    host     |0F0|0F1|....send 0F0|0F2|....send 0F1|      computes each action at once, holds back what it sends
    device   |-----0F0-----|-----0F1-----|-----0F2---     is busy for as long as the cost says

As with a GPU, the host runs ahead of its device. An action starts on the device when that is free and its input has
arrived: when the message really came, and not before ``p2p`` of the cost after the sender's device had made it. What a
device has not finished is not sent, so whoever waits, waits for real. Python, torch and gloo cost what they cost where
a rank waits for them; processors that are shared cost nothing as long as all hosts keep ahead of their devices.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipezoo.runtime.action_timer import Spans, without_clocks
from pipezoo.schedule.action import COMPUTE, Action, Op
from pipezoo.simulator.cost import Cost

SPIN = 2e-4  # seconds before a moment in which sleep() would oversleep it


class Emulation:
    """The device of one rank, and a recorder of what it did.

    Args:
        cost: what an action takes, and the p2p message between ranks.
        stage_to_rank, num_microbatches: of the schedule.
        path: of a file in which all ranks note when their devices were done.
    """

    def __init__(self, cost: Cost, stage_to_rank: Sequence[int], num_microbatches: int, path: Path) -> None:
        self._seconds = cost.seconds
        self._optimizer = cost.optimizer
        crosses = np.diff(stage_to_rank) != 0
        self._p2p = np.where(crosses, cost.p2p_seconds(stage_to_rank), -np.inf)
        self._skips = [
            (message.before, message.after, seconds)
            for message, seconds in cost.skip_seconds(stage_to_rank)
            if stage_to_rank[message.before] != stage_to_rank[message.after]
        ]
        self._done = _shared(path, (2, len(stage_to_rank), num_microbatches))
        self._free = 0.0
        self._stages: set[int] = set()
        self._spans: list[tuple[float, ...]] = []

    def begin(self) -> float:
        return time.perf_counter()

    def end(self, stage: int, op: Op, microbatch: int, began: object) -> None:
        assert isinstance(began, float)
        if op not in COMPUTE:  # it takes what it takes, once the device has made the gradients
            start = max(self._free, began)
            self._free = start + time.perf_counter() - began
            self._spans.append((stage, op, microbatch, start, self._free))
            return
        start = max(self._free, began, self._arrival(stage, op, microbatch))
        self._free = max(start + self._seconds[stage, op], time.perf_counter())
        self._stages.add(stage)
        self._spans.append((stage, op, microbatch, start, self._free))
        if op != Op.W:
            self._done[int(op != Op.F), stage, microbatch] = self._free

    def extend(self) -> None:
        """The loss is part of the last forward's cost."""

    def take(self) -> Spans:
        """Wait until the device is idle, the optimizer step included."""
        self._free += sum(self._optimizer[stage] for stage in self._stages)
        _sleep_until(self._free)
        spans, self._spans = self._spans, []
        return without_clocks(np.array(spans, dtype=np.float64).reshape(-1, 5))

    def holding(self, note: Callable[[int], None], actions: Sequence[Action]) -> Callable[[int], None]:
        """``note``, and before a send of ``actions`` a wait until the device has made what is sent."""

        def locked(index: int) -> None:
            note(index)
            if index < len(actions) and actions[index].op in (Op.SEND_F, Op.SEND_B):
                action = actions[index]
                _sleep_until(float(self._done[int(action.op == Op.SEND_B), action.stage, action.microbatch]))

        return locked

    def _arrival(self, stage: int, op: Op, microbatch: int) -> float:
        """When the inputs can have come from other ranks at the earliest, skips too; -inf where none did."""
        if op == Op.W:
            return -np.inf
        done = self._done[int(op != Op.F), :, microbatch]
        source = stage - 1 if op == Op.F else stage + 1
        found = [-np.inf]
        if 0 <= source < len(self._seconds):
            found.append(float(done[source] + self._p2p[min(source, stage)]))
        for before, after, seconds in self._skips:
            sender, receiver = (before, after) if op == Op.F else (after, before)
            if receiver == stage:
                found.append(float(done[sender] + seconds))
        return max(found)


def _shared(path: Path, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Float64 in memory that every process has which maps ``path``; the first one makes the file, full of zeros."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(file, int(np.prod(shape)) * 8)
    os.close(file)
    return np.memmap(path, dtype=np.float64, mode="r+", shape=shape)


def _sleep_until(moment: float) -> None:
    """``moment`` as of ``time.perf_counter``, which all processes of a machine share."""
    left = moment - time.perf_counter()
    if left > SPIN:
        time.sleep(left - SPIN)
    while time.perf_counter() < moment:
        pass
