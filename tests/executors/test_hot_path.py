"""What a step does for each microbatch and stage, counted: calls, backwards, messages, copies, and nothing that stays.

Counts hold on every machine, where times do not. `python -m benchmarks.aims` has the times.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from pipezoo.executors import stage_slots
from pipezoo.executors.stage_slots import StageSlots
from pipezoo.launch.mesh import Place
from pipezoo.runtime.action_timer import HostRecorder, NoRecorder
from pipezoo.runtime.assemble import assemble
from pipezoo.runtime.executor import RankExecutor
from pipezoo.runtime.mesh import Groups
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.schedule.lowering import lower
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.supervisor.handlers import NO_HANDLERS
from pipezoo.supervisor.this_process import DirectChannel
from pipezoo.transports.choose import transport_for
from tests.executors.test_native import Chain, Plain, cut_by_layers
from tests.support.pipelines import ROWS, WIDTH

CPU = torch.device("cpu")
OURS = "/pipezoo/"


class Two:
    """Two stages of the native executor; ``step`` runs a step of all ranks."""

    def __init__(self, pipeline: Callable[..., Pipeline], microbatches: int, virtual: bool) -> None:
        schedule = one_f_one_b(2, microbatches)
        placed = (0, 0) if virtual else (0, 1)
        actions = lower(schedule, placed) if virtual else lower(schedule)
        built = pipeline(partial(Chain, Plain, 2), schedule, cut_by_layers, actions=actions, stage_to_rank=placed)
        self.transport: Any = None if virtual else transport_for(built, "fork", "shared_memory")
        object.__setattr__(built, "transport", self.transport)
        self.posts: Counter[tuple[int, int]] = Counter()
        for pair, counter in ({} if virtual else self.transport.counters).items():
            counter.release = partial(self._post, pair, counter.release)
        self.x, self.target = torch.randn(ROWS * microbatches, WIDTH), torch.randn(ROWS * microbatches, WIDTH)
        channel = DirectChannel("a test", NO_HANDLERS)
        self.ranks: list[RankExecutor] = [
            assemble(built, rank, Groups(Place(rank)), CPU, channel).executor for rank in range(built.pp)
        ]
        for rank in self.ranks:
            rank.observe(NoRecorder(), None)

    def _post(self, pair: tuple[int, int], post: Callable[[], None]) -> None:
        self.posts[pair] += 1
        post()

    def step(self) -> None:
        if len(self.ranks) == 1:
            self.ranks[0].step((self.x,), self.target)
            return
        threads = [
            threading.Thread(target=rank.step, args=((self.x,) if place == 0 else (), self.target if place else None))
            for place, rank in enumerate(self.ranks)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20.0)
            assert not thread.is_alive()


def calls_of(step: Callable[[], None]) -> Counter[str]:
    """How often a step enters functions of pipezoo's own files."""
    found: Counter[str] = Counter()

    def look(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and OURS in frame.f_code.co_filename:
            found[frame.f_code.co_name] += 1

    sys.setprofile(look)
    try:
        step()
    finally:
        sys.setprofile(None)
    return found


def test_a_microbatch_on_a_stage_takes_few_calls(pipeline: Callable[..., Pipeline]) -> None:
    """The difference between eight microbatches and four is that of four microbatches on two stages each."""
    few, many = (Two(pipeline, microbatches, virtual=True) for microbatches in (4, 8))
    for two in (few, many):
        two.step()
    more = calls_of(many.step)
    more.subtract(calls_of(few.step))
    each = {name: count / 8 for name, count in more.items() if count}
    once = {name for name, count in each.items() if count == 1.0}
    assert once >= {"forward", "_compute", "backward", "run_backward", "_graph", "_hand_back"}
    assert each["note"] == 2.0
    comprehensions = sum(count for name, count in each.items() if name.startswith("<"))
    assert sum(each.values()) - comprehensions <= 15.0, each


@pytest.mark.parametrize("recorder", [NoRecorder, HostRecorder])
def test_a_step_leaves_nothing_behind(pipeline: Callable[..., Pipeline], recorder: Callable[[], Any]) -> None:
    """Objects that Python has to look after: as many after the seventh step as after the second."""
    two = Two(pipeline, 8, virtual=True)
    looking = recorder()
    two.ranks[0].observe(looking, None)
    counts = []
    gc.collect()
    gc.freeze()  # what torch and the other tests hold takes half a second to walk, each time
    try:
        for _ in range(7):
            two.step()
            looking.take()
            gc.collect()
            counts.append(len(gc.get_objects()))
    finally:
        gc.unfreeze()
    assert counts[1] == counts[-1]


def test_each_backward_is_one_call_of_the_engine(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    right = stage_slots.run_backward
    monkeypatch.setattr(stage_slots, "run_backward", lambda *graph: calls.append(right(*graph)))
    Two(pipeline, 4, virtual=True).step()
    assert len(calls) == 2 * 4


def test_a_message_is_one_copy_and_one_post(pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch) -> None:
    two = Two(pipeline, 4, virtual=False)
    copies: list[torch.Size] = []
    right = torch.Tensor.copy_
    monkeypatch.setattr(torch.Tensor, "copy_", lambda to, value: (copies.append(value.shape), right(to, value))[1])
    for _ in range(2):
        two.step()
    assert two.posts == {(0, 1): 8, (1, 0): 8}, "an output and a gradient for each of four microbatches, in two steps"
    assert copies == [torch.Size([ROWS, WIDTH])] * 16


def test_what_arrives_is_used_where_it_lies(pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    right = StageSlots._compute

    def compute(slots: StageSlots, received: list[torch.Tensor], mb: int) -> None:
        if slots.index == 1:
            seen.append(received[0].data_ptr())
        right(slots, received, mb)

    monkeypatch.setattr(StageSlots, "_compute", compute)
    two = Two(pipeline, 4, virtual=False)
    for _ in range(4):
        two.step()
    assert seen[:8] == seen[8:], "the same eight places, two for each microbatch, again and again"
    assert len(set(seen)) == 8
