"""A stage of a pipeline with skips, at work: what arrives by several hops is joined, what leaves by several is parted.

    hops in     0 → 3 (h)   2 → 3 (x)            hops out    3 → 4 (y)   3 → 6 (h)
    forward     inputs = x, h ──► outputs = y, h ──► a slot for each hop, or the other stage's own on the same rank
    backward    input_grads  ◄── grads = of y, of h ◄── each as it comes back

The stage itself knows of flat tuples alone (``stage_slots.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, chain
from typing import Any, Protocol

from pipezoo.runtime.executor import RankProgram
from pipezoo.runtime.transport import Endpoint, Lane
from pipezoo.runtime.wiring import Hop
from pipezoo.schedule.action import Action, Op

Slots = list[Any]


class Stage(Protocol):
    """What is used of a stage: its slots by microbatch, and what it computes."""

    index: int
    inputs: Slots
    outputs: Slots
    grads: Slots
    input_grads: Slots

    def forward(self, mb: int) -> None: ...
    def backward(self, mb: int) -> None: ...
    def input_gradient(self, mb: int) -> None: ...
    def weight_gradient(self, mb: int) -> None: ...


class Crossing:
    """What enters and leaves one stage, hop by hop.

    ``arrived`` and ``left`` hold the tensors of a hop by the stage at its other end, ``returned`` and ``handed_back``
    their gradients.
    """

    def __init__(self, stage: Stage, program: RankProgram) -> None:
        self._stage, self._size = stage, program.num_microbatches
        hops = program.hops
        self._into = [hop for hop in reversed(hops) if hop.after == stage.index]
        self._out = [hop for hop in hops if hop.before == stage.index]
        self.peers: dict[int, Crossing] = {}  # those on this rank
        lanes, endpoint = {lane.way: lane for lane in program.lanes}, program.endpoint
        self._lanes: dict[tuple[int, int], Lane] = lanes
        self._endpoint: Endpoint = endpoint
        self.arrived = {hop.before: self._slots() for hop in self._into}
        self.left = {hop.after: self._slots() for hop in self._out}
        self.returned = {hop.after: self._slots() for hop in self._out if _learned(hop)}
        self.handed_back = {hop.before: self._slots() for hop in self._into if _learned(hop)}
        self._cuts_out = _cuts([len(hop.forms) for hop in self._out])
        self._cuts_back = _cuts([_learned(hop) for hop in self._into if _learned(hop)])

    def _slots(self) -> Slots:
        return [None] * self._size

    def call(self, action: Action) -> Callable[[], None]:
        """What an action does, as a call without arguments."""
        assert action.microbatch is not None
        mb = action.microbatch
        if action.op in (Op.F, Op.B, Op.I, Op.W):
            run = {Op.F: self._forward, Op.B: self._backward, Op.I: self._input_gradient}.get(action.op)
            return partial(run or self._stage.weight_gradient, mb)  # type: ignore[arg-type]
        forward = action.op in (Op.SEND_F, Op.RECV_F)
        sends = action.op in (Op.SEND_F, Op.SEND_B)
        other = action.peer
        if other is None:
            other = self._stage.index + (1 if forward == sends else -1)
        here = self._stage.index
        lane = self._lanes.get((here, other) if sends else (other, here))
        if lane is None:  # a gradient that nothing before it learns from
            return _nothing
        if sends:
            return partial(_send, self._endpoint.sender(lane), (self.left if forward else self.handed_back)[other], mb)
        slots = (self.arrived if forward else self.returned)[other]
        return partial(_receive, self._endpoint.receiver(lane), slots, mb)

    def _forward(self, mb: int) -> None:
        if self._into:
            self._stage.inputs[mb] = _joined(self.arrived.values(), mb)
        self._stage.forward(mb)
        outputs, self._stage.outputs[mb] = self._stage.outputs[mb], None
        for (low, high), (after, slots) in zip(self._cuts_out, self.left.items(), strict=True):
            peer = self.peers.get(after)
            (slots if peer is None else peer.arrived[self._stage.index])[mb] = outputs[low:high]

    def _backward(self, mb: int) -> None:
        self._gather(mb)
        self._stage.backward(mb)
        self._hand_back(mb)

    def _input_gradient(self, mb: int) -> None:
        self._gather(mb)
        self._stage.input_gradient(mb)
        self._hand_back(mb)

    def _gather(self, mb: int) -> None:
        if self._out:
            self._stage.grads[mb] = _joined(self.returned.values(), mb)

    def _hand_back(self, mb: int) -> None:
        grads, self._stage.input_grads[mb] = self._stage.input_grads[mb], None
        for (low, high), (before, slots) in zip(self._cuts_back, self.handed_back.items(), strict=True):
            peer = self.peers.get(before)
            (slots if peer is None else peer.returned[self._stage.index])[mb] = grads[low:high]


def crossings(stages: Sequence[Stage], program: RankProgram) -> dict[int, Crossing]:
    """The crossing of each stage of a rank, by the stage's index; none in a pipeline without skips."""
    if all(hop.after == hop.before + 1 for hop in program.hops):
        return {}
    made = {stage.index: Crossing(stage, program) for stage in stages}
    for crossing in made.values():
        crossing.peers = made
    return made


def _learned(hop: Hop) -> int:
    """For how many of its tensors a gradient comes back."""
    return sum(form.requires_grad for form in hop.forms)


def _cuts(sizes: Sequence[int]) -> list[tuple[int, int]]:
    ends = list(accumulate(sizes))
    return list(zip([0, *ends], ends, strict=False))


def _joined(parts: Any, mb: int) -> Callable[[], tuple[Any, ...]]:
    """The tensors of several hops, once all have arrived; their slots are emptied."""
    waiting = []
    for slots in parts:
        waiting.append(slots[mb])
        slots[mb] = None
    return lambda: tuple(chain.from_iterable(part() if callable(part) else part for part in waiting))


def _send(send: Callable[[int, Any], None], slots: Slots, mb: int) -> None:
    tensors, slots[mb] = slots[mb], None
    send(mb, tensors)


def _receive(receive: Callable[[int], Any], slots: Slots, mb: int) -> None:
    slots[mb] = receive(mb)


def _nothing() -> None:
    pass
