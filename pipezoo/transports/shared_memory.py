"""Memory that forked ranks of one machine share: a message is one copy and the post of a semaphore.

    sender      slot[step % 2][microbatch].copy_(output)     post
    receiver                                                      wait, use the slot itself

Every lane has a slot for each microbatch, twice: what a rank received in a step may be read until that step ends, while
its neighbour is in the next one already. Nobody is two steps ahead: a sender waits for the end of its receiver's last
step but one. Messages between two ranks are counted by one semaphore in the order in which they are sent, which is the
order in which the lowering has them received.

The memory is mapped before the ranks are forked, has no name and no file, and goes with the last of them. A peer that
dies is the supervisor's to notice.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.synchronize import Semaphore

import torch

from pipezoo.runtime.mesh import ALONE, Groups
from pipezoo.runtime.transport import Lane, Receive, Send, Tensors, check_form
from pipezoo.schedule.action import Action, Op

SPINS = 100  # tries of a semaphore, about 30 us, before a rank that has a core to itself goes to sleep
MORE_SPINS = 400  # the same where the last wait was a short one: to sleep and to be woken costs both ranks more
SHORT = 300e-6  # seconds
ALIGNMENT = 64  # bytes: a cache line
SENDS = {Op.SEND_F: 1, Op.SEND_B: -1}  # to the stage so much further, where the action names no other
Way = tuple[int, int]  # from which stage to which


def bytes_needed(lanes: Sequence[Lane], num_microbatches: int) -> int:
    """The memory that the slots of ``lanes`` take; those of one way, for several shapes of batch, share theirs."""
    return sum(2 * num_microbatches * size for size in _largest(lanes).values())


class SharedMemory:
    """The slots of all lanes, and a semaphore for every ordered pair of neighbours.

    Args:
        lanes: of the pipeline, for every shape of batch.
        actions: of every rank, messages included.
        num_microbatches: of a step.
        may_spin: whether every rank has a core of its own.
    """

    name = "shared memory"

    def __init__(
        self, lanes: Sequence[Lane], actions: Sequence[Sequence[Action]], num_microbatches: int, may_spin: bool
    ) -> None:
        self._num_microbatches, self._spins = num_microbatches, SPINS if may_spin else 0
        self._offsets: dict[Way, int] = {}
        self._sizes, size = _largest(lanes), 0
        for way, of_one in self._sizes.items():
            self._offsets[way] = size
            size += 2 * num_microbatches * of_one
        self._values = mmap.mmap(-1, max(size, 1))
        self._steps_done = memoryview(mmap.mmap(-1, 8 * max(1, len(actions)))).cast("q")
        pairs = {(lane.source, lane.target) for lane in lanes}
        context = get_context("fork")
        self.counters: dict[tuple[int, int], Semaphore] = {pair: context.Semaphore(0) for pair in sorted(pairs)}
        self._numbers, self._per_step = _numbered(lanes, actions)

    def endpoint(self, rank: int, device: torch.device, groups: Groups = ALONE) -> SharedMemoryEndpoint:
        return SharedMemoryEndpoint(self, rank)

    def slots(self, lane: Lane) -> list[list[Tensors]]:
        """``[2][num_microbatches]`` tuples of tensors in the shared memory."""
        start, size = self._offsets[lane.way], self._sizes[lane.way]
        places = [start + number * size for number in range(2 * self._num_microbatches)]
        slots = [self._slot(lane, place) for place in places]
        return [slots[: self._num_microbatches], slots[self._num_microbatches :]]

    def _slot(self, lane: Lane, place: int) -> Tensors:
        """Each tensor on a storage of its own: autograd would take a write to one for a write to all."""
        tensors = []
        for form in lane.forms:
            tensors.append(_mapped(self._values, form, place))
            place += _aligned(_bytes(form))
        return tuple(tensors)

    def number(self, lane: Lane, microbatch: int) -> int:
        """Which message of a step this is among those from its sender to its receiver, from 1."""
        return self._numbers[lane.way, microbatch]

    def per_step(self, lane: Lane) -> int:
        return self._per_step[lane.source, lane.target]

    @property
    def spins(self) -> int:
        return self._spins

    @property
    def steps_done(self) -> memoryview:
        """``[num_ranks]`` int64: how many steps each rank has ended."""
        return self._steps_done


class SharedMemoryEndpoint:
    """One rank's end. Counts its steps, and the messages that have arrived from each neighbour."""

    def __init__(self, memory: SharedMemory, rank: int) -> None:
        self._memory, self._rank, self._step = memory, rank, -1
        self._arrived: dict[int, int] = {}
        self._free_until: dict[int, int] = {}

    def sender(self, lane: Lane) -> Send:
        slots, post, target = (
            self._memory.slots(lane),
            self._memory.counters[lane.source, lane.target].release,
            lane.target,
        )
        forms = [(form.shape, form.dtype) for form in lane.forms]
        self._free_until.setdefault(target, 2)

        def send(microbatch: int, tensors: Sequence[torch.Tensor]) -> None:
            if self._free_until[target] <= self._step:
                self._wait_for_the_step_of(target)
            for slot, tensor, (shape, dtype) in zip(slots[self._step % 2][microbatch], tensors, forms, strict=True):
                if tensor.shape != shape or tensor.dtype != dtype:
                    check_form(lane, tensor, slot)  # says so
                slot.copy_(tensor.detach())
            post()

        return send

    def receiver(self, lane: Lane) -> Receive:
        slots, take = self._memory.slots(lane), self._memory.counters[lane.source, lane.target].acquire
        numbers = [self._memory.number(lane, mb) for mb in range(len(slots[0]))]
        per_step, few, source = self._memory.per_step(lane), self._memory.spins, lane.source
        count, tries, more = self._arrived, few, MORE_SPINS if few else 0
        let_others = os.sched_yield  # a neighbour may be waiting for this very core
        count.setdefault(source, 0)

        def arrival(microbatch: int, number: int) -> Callable[[], Tensors]:
            def arrived() -> Tensors:
                nonlocal tries
                step = self._step
                while count[source] < step * per_step + number:
                    began = time.perf_counter()
                    for tried in range(tries):
                        if take(False):
                            break
                        if tried >= few:
                            let_others()
                    else:
                        take()
                        tries = more if time.perf_counter() - began < SHORT else few
                    count[source] += 1
                return slots[step % 2][microbatch]

            return arrived

        arrivals = [arrival(microbatch, number) for microbatch, number in enumerate(numbers)]
        return arrivals.__getitem__

    def begin_step(self) -> None:
        self._step += 1
        self._memory.steps_done[self._rank] = self._step

    def end_step(self) -> None:
        pass

    def _wait_for_the_step_of(self, rank: int) -> None:
        """The slots of this step were last used two steps ago: wait until ``rank`` has ended that one."""
        while (done := self._memory.steps_done[rank]) < self._step - 1:
            time.sleep(50e-6)
        self._free_until[rank] = done + 2


def _numbered(
    lanes: Sequence[Lane], actions: Sequence[Sequence[Action]]
) -> tuple[dict[tuple[Way, int], int], dict[tuple[int, int], int]]:
    """The place of every message among those of its pair of ranks in a step, and how many those are."""
    by_way = {lane.way: lane for lane in lanes}
    numbers: dict[tuple[Way, int], int] = {}
    counts: dict[tuple[int, int], int] = {}
    for of_rank in actions:
        for action in of_rank:
            if action.op not in SENDS or action.microbatch is None:
                continue
            way = (action.stage, action.stage + SENDS[action.op] if action.peer is None else action.peer)
            lane = by_way.get(way)
            if lane is None:  # a gradient that nothing before it learns from
                continue
            pair = (lane.source, lane.target)
            counts[pair] = counts.get(pair, 0) + 1
            numbers[way, action.microbatch] = counts[pair]
    return numbers, counts


def _bytes(form: torch.Tensor) -> int:
    return form.numel() * form.element_size()


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _bytes_of(lane: Lane) -> int:
    """What the tensors of one microbatch take, each on cache lines of its own."""
    return sum(_aligned(_bytes(form)) for form in lane.forms)


def _largest(lanes: Sequence[Lane]) -> dict[Way, int]:
    """What the largest message of each way takes."""
    sizes: dict[Way, int] = {}
    for lane in lanes:
        sizes[lane.way] = max(sizes.get(lane.way, 0), _bytes_of(lane))
    return sizes


def _mapped(memory: mmap.mmap, form: torch.Tensor, place: int) -> torch.Tensor:
    """A tensor like ``form`` whose values lie at ``place``."""
    if not form.numel():
        return torch.empty_strided(form.size(), form.stride(), dtype=form.dtype)
    flat = torch.frombuffer(memory, dtype=form.dtype, count=form.numel(), offset=place)
    return flat.as_strided(form.size(), form.stride())
