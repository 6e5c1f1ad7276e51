"""The native executor: the lowered order of a rank, compiled once into a flat program.

    actions    1RECV_F0   1F0         1SEND_F0   1RECV_B0   1B0          1SEND_B0
    program    receive    forward     send       receive    backward     send        each bound to its slots
    slots      inputs[0] ────► outputs[0] ──►    grads[0] ─────► input_grads[0] ──►

A stage has one slot a microbatch for what arrived, for the ends of its graph, for the gradients that came back and for
those it hands on. A slot is emptied by the action that reads it last: tensors and graphs live no longer than the order
needs them. A neighbour on the same rank is handed the tensors themselves; any other is sent a message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from pipezoo.executors.compiled import check_compiles, compiled
from pipezoo.executors.deferred_weights import Deferred
from pipezoo.executors.skips import crossings
from pipezoo.executors.split_backward import input_gradient, weight_gradient
from pipezoo.runtime.action_timer import NoRecorder, Recorder
from pipezoo.runtime.activation_memory import ActivationMeter
from pipezoo.runtime.autograd_engine import run_backward
from pipezoo.runtime.executor import RankProgram, RankStage, Tensors
from pipezoo.runtime.microbatching import microbatches
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.replicas import Reducing
from pipezoo.runtime.transport import Receive, Send, Transport
from pipezoo.schedule.action import COMPUTE, OF_A_STAGE, Action, Op
from pipezoo.transports.choose import TRANSPORTS, transport_for
from pipezoo.validators import check_bool, check_word


class StageSlots:
    """One stage at work: its module, and a slot a microbatch for everything that is alive between two actions."""

    def __init__(self, stage: RankStage, program: RankProgram) -> None:
        self.stage, self.loss, self.index = stage, program.loss, stage.index
        self.input_learns = [like.requires_grad for like in stage.inputs]
        self.output_learns = [like.requires_grad for like in stage.outputs]
        self.deferred = Deferred.of(stage.module) if stage.defers else None
        self.input_gradient_of = self.deferred.input_gradient if self.deferred else input_gradient
        self.weight_gradient_of = self.deferred.weight_gradient if self.deferred else weight_gradient
        self.recorder: Recorder = NoRecorder()
        self.meter: ActivationMeter | None = None
        self.is_last = stage.index == program.num_stages - 1
        self.send_output, self.send_gradient, self.receive_input, self.receive_gradient = _ends(program, stage.index)
        self.before: StageSlots | None = None  # the neighbours, where they are on this rank
        self.after: StageSlots | None = None
        size = program.num_microbatches
        self.inputs: list[Any] = [None] * size
        self.given: list[Any] = [None] * size  # of the model's inputs, from the batch
        self.leaves: list[Any] = [None] * size
        self.ends: list[Any] = [None] * size
        self.outputs: list[Any] = [None] * size
        self.grads: list[Any] = [None] * size
        self.input_grads: list[Any] = [None] * size
        self.later: list[list[Any]] = [[] for _ in range(size)]
        self.targets: list[Any] = [None] * size
        self.losses: list[Any] = [None] * size

    def forward(self, mb: int) -> None:
        """F: from what arrived to the outputs; on the last stage to the loss."""
        values, self.inputs[mb] = _taken(self.inputs[mb]), None
        if self.stage.given:
            values = (*(values or ()), *self.given[mb])
        began = self.recorder.begin()
        received = [
            value.detach().requires_grad_() if learns else value.detach()
            for value, learns in zip(values, self.input_learns, strict=True)
        ]
        self.leaves[mb] = [tensor for tensor in received if tensor.requires_grad]
        if self.meter is None:
            self._compute(received, mb)
        else:
            with self.meter.saving(self.index):
                self._compute(received, mb)
        self.recorder.end(self.index, Op.F, mb, began)

    def _compute(self, received: list[torch.Tensor], mb: int) -> None:
        result = self.stage.module(*received)
        outputs = result if isinstance(result, tuple) else (result,)
        if self.is_last:
            target, self.targets[mb] = self.targets[mb], None
            loss = self.loss(result, target)
            self.ends[mb], self.grads[mb], self.losses[mb] = (loss,), (None,), loss.detach()
        else:
            self.ends[mb] = [out for out, learns in zip(outputs, self.output_learns, strict=True) if learns]
            (self.outputs if self.after is None else self.after.inputs)[mb] = outputs

    def call(self, op: Op, mb: int) -> Callable[[], None]:
        """What an action does, as a call without arguments."""
        run = {
            Op.F: self.forward,
            Op.B: self.backward,
            Op.I: self.input_gradient,
            Op.W: self.weight_gradient,
            Op.SEND_F: self.send_forward,
            Op.RECV_F: self.receive_forward,
            Op.SEND_B: self.send_backward,
            Op.RECV_B: self.receive_backward,
        }[op]
        return partial(run, mb)

    def backward(self, mb: int) -> None:
        """B: the gradients of parameters and of what arrived."""
        ends, grads, leaves = self._graph(mb)
        began = self.recorder.begin()
        found: list[torch.Tensor | None] | None = None
        if self.deferred is not None:
            found, later = self.deferred.input_gradient(ends, grads, leaves)
            self.deferred.weight_gradient(later)
        elif ends:
            run_backward(ends, grads)
        if self.stage.weight_gradient is not None:
            self.stage.weight_gradient()
        self._hand_back([leaf.grad for leaf in leaves] if found is None else found, leaves, mb)
        self.recorder.end(self.index, Op.B, mb, began)

    def input_gradient(self, mb: int) -> None:
        """I: the gradients of what arrived alone. A module that splits its backward itself runs all of autograd's."""
        ends, grads, leaves = self._graph(mb)
        began = self.recorder.begin()
        if self.stage.weight_gradient is not None:
            run_backward(ends, grads)
            found = [leaf.grad for leaf in leaves]
        else:
            found, self.later[mb] = self.input_gradient_of(ends, grads, leaves)
        self._hand_back(found, leaves, mb)
        self.recorder.end(self.index, Op.I, mb, began)

    def weight_gradient(self, mb: int) -> None:
        """W: the rest."""
        began = self.recorder.begin()
        if self.stage.weight_gradient is not None:
            self.stage.weight_gradient()
        else:
            self.weight_gradient_of(self.later[mb])
        self.recorder.end(self.index, Op.W, mb, began)

    def _graph(self, mb: int) -> tuple[list[torch.Tensor], list[torch.Tensor | None], list[torch.Tensor]]:
        """The ends of the graph that learn, the gradients that arrived for them, and the leaves; frees their slots."""
        pairs = [(e, g) for e, g in zip(self.ends[mb], _taken(self.grads[mb]) or (), strict=True) if e.requires_grad]
        leaves = self.leaves[mb]
        self.ends[mb] = self.grads[mb] = self.leaves[mb] = None
        return [end for end, _ in pairs], [grad for _, grad in pairs], leaves

    def _hand_back(self, found: list[torch.Tensor | None], leaves: list[torch.Tensor], mb: int) -> None:
        """A gradient for everything whose sender waits for one; zeros where the stage did not use it."""
        if leaves:
            grads = tuple(torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True))
            (self.input_grads if self.before is None else self.before.grads)[mb] = grads

    def receive_forward(self, mb: int) -> None:
        if self.receive_input:
            self.inputs[mb] = self.receive_input(mb)

    def send_forward(self, mb: int) -> None:
        outputs, self.outputs[mb] = self.outputs[mb], None
        if self.send_output:
            self.send_output(mb, outputs)

    def receive_backward(self, mb: int) -> None:
        self.grads[mb] = self.receive_gradient(mb) if self.receive_gradient else ()

    def send_backward(self, mb: int) -> None:
        grads, self.input_grads[mb] = self.input_grads[mb], None
        if self.send_gradient:
            self.send_gradient(mb, grads)


def _taken(slot: Any) -> Any:
    """What is in a slot, once it has arrived."""
    return slot() if callable(slot) else slot


def _ends(program: RankProgram, stage: int) -> tuple[Send | None, Send | None, Receive | None, Receive | None]:
    """How a stage sends outputs and gradients, and receives inputs and gradients; None where no message goes."""
    lanes = {lane.way: lane for lane in program.lanes}
    out, back = lanes.get((stage, stage + 1)), lanes.get((stage, stage - 1))
    into, returned = lanes.get((stage - 1, stage)), lanes.get((stage + 1, stage))
    endpoint = program.endpoint
    return (
        endpoint.sender(out) if out else None,
        endpoint.sender(back) if back else None,
        endpoint.receiver(into) if into else None,
        endpoint.receiver(returned) if returned else None,
    )


@dataclass(frozen=True)
class Native:
    """``executor=native``: pipezoo's own. Skips go straight to where they are used.

    Args:
        transport_name: ``shared_memory``, ``distributed``, or ``auto``: shared memory where the ranks can share it.
        compiles: whether stages go through ``torch.compile``.
    """

    transport_name: str = "auto"
    compiles: bool = False
    relays: ClassVar[bool] = False
    defers: ClassVar[bool] = True

    def inspect(
        self, index: int, stage: nn.Module, copy: nn.Module, ends: list[torch.Tensor], leaves: list[torch.Tensor]
    ) -> None:
        """Every stage can be split."""

    @property
    def keeps_bits(self) -> bool:
        """A compiled stage adds in another order."""
        return not self.compiles

    def check(self, pipeline: Pipeline) -> None:
        if self.compiles:
            check_compiles(pipeline)

    def transport(self, pipeline: Pipeline, start_method: str) -> Transport:
        return transport_for(pipeline, start_method, self.transport_name)

    def of_rank(self, program: RankProgram) -> NativeRank:
        return NativeRank(compiled(program) if self.compiles else program)

    def forward_only(self, program: RankProgram) -> ForwardRank:
        return ForwardRank(program)


def native(transport: str = "auto", compile: bool = False) -> Native:
    """pipezoo's own executor. Raises ArgumentError for a transport that there is not."""
    return Native(check_word("transport", transport, TRANSPORTS, "transport"), check_bool("compile", compile))


class NativeRank:
    """The executor of one rank."""

    slots: type[StageSlots] = StageSlots

    def __init__(self, program: RankProgram) -> None:
        self._note, self._size = program.note, program.num_microbatches
        self._program, self._endpoint = program, program.endpoint
        self._slots = {stage.index: self.slots(stage, program) for stage in program.stages}
        self._crossings = crossings(list(self._slots.values()), program)
        for index, slots in self._slots.items():
            if not self._crossings:
                slots.before, slots.after = self._slots.get(index - 1), self._slots.get(index + 1)
        self._first, self._last = self._slots.get(0), self._slots.get(program.num_stages - 1)
        self._given = [slots for slots in self._slots.values() if slots.stage.given]
        self._run = self._compile(program)

    def _compile(self, program: RankProgram) -> list[Callable[[], None]]:
        """One call without arguments for every action."""
        calls: list[Callable[[], None]] = []
        for action in program.actions:
            if action.op in OF_A_STAGE:  # tied parameters are summed by the rank, once all of its stages are done
                calls.append(self._of_a_stage(action, program.reduction) if program.reduction else _nothing)
                continue
            assert action.microbatch is not None
            crossing = self._crossings.get(action.stage)
            slots = self._slots[action.stage]
            call = slots.call(action.op, action.microbatch) if crossing is None else crossing.call(action)
            if program.draws is not None and action.op in COMPUTE:
                call = program.draws.around(call, action.op, action.stage, action.microbatch)
            calls.append(call)
        return calls

    def _of_a_stage(self, action: Action, reduction: Reducing) -> Callable[[], None]:
        """What replicas do with each other; gradients are added up in the last step before an update."""
        slots = self._slots[action.stage]
        each: dict[Op, Callable[[int], None]] = {
            Op.UNSHARD: reduction.unshard,
            Op.REDUCE_GRAD: reduction.__call__,
            Op.RESHARD: reduction.reshard,
        }
        does = each[action.op]

        def call() -> None:
            if reduction.is_due or action.op != Op.REDUCE_GRAD:
                began = slots.recorder.begin()
                does(action.stage)
                slots.recorder.end(action.stage, action.op, -1, began)

        return call

    def observe(self, recorder: Recorder, meter: ActivationMeter | None) -> None:
        for slots in self._slots.values():
            slots.recorder, slots.meter = recorder, meter
        self._note = self._program.note if meter is None else partial(self._turn, meter)

    def _turn(self, meter: ActivationMeter, index: int) -> None:
        """Note an action, and tell the meter whose turn it is."""
        self._program.note(index)
        if index < len(self._run) and (action := self._program.actions[index]).op in COMPUTE:
            meter.turn(action.stage, action.op)

    def step(self, inputs: Tensors, target: torch.Tensor | None) -> list[torch.Tensor]:
        if self._first is not None:
            self._first.inputs[:] = microbatches(inputs, self._size)
        for slots in self._given:
            slots.given[:] = microbatches([inputs[number] for number in slots.stage.given], self._size)
        if self._last is not None and target is not None:
            self._last.targets[:] = torch.tensor_split(target, self._size)
        self._endpoint.begin_step()
        note = self._note
        for index, run in enumerate(self._run):
            note(index)
            run()
        note(len(self._run))
        self._endpoint.end_step()
        if self._last is None:
            return []
        losses, self._last.losses = self._last.losses, [None] * self._size
        return [loss for loss in losses if loss is not None]


class ForwardSlots(StageSlots):
    """A stage whose outputs go on, and that keeps nothing else."""

    def forward(self, mb: int) -> None:
        super().forward(mb)
        self.leaves[mb] = self.ends[mb] = self.grads[mb] = None


class ForwardRank(NativeRank):
    """The executor of one rank in an evaluation."""

    slots = ForwardSlots


def _nothing() -> None:
    pass
