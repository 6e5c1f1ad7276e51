"""A stage at work in the native executor: what each of its actions does, from slot to slot.

    slots      inputs[0] ──F──► outputs[0], ends[0]        grads[0], ends[0] ──B──► input_grads[0]

A stage has one slot a microbatch for what arrived, for the ends of its graph, for the gradients that came back and for
those it hands on. A slot is emptied by the action that reads it last: tensors and graphs live no longer than the order
needs them. A neighbour on the same rank is handed the tensors themselves; any other is sent a message.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from pipezoo.executors.deferred_weights import Deferred
from pipezoo.executors.fused_weights import FusedWeights
from pipezoo.executors.split_backward import input_gradient, weight_gradient
from pipezoo.executors.whole_backward import WholeBackward
from pipezoo.runtime.action_timer import NoRecorder, Recorder
from pipezoo.runtime.activation_memory import ActivationMeter
from pipezoo.runtime.autograd_engine import run_backward
from pipezoo.runtime.executor import RankProgram, RankStage
from pipezoo.runtime.replicas import Reduction
from pipezoo.runtime.transport import Receive, Send
from pipezoo.schedule.action import Op


class StageSlots:
    """One stage at work: its module, and a slot a microbatch for everything that is alive between two actions."""

    def __init__(self, stage: RankStage, program: RankProgram) -> None:
        self.stage, self.loss, self.index = stage, program.loss, stage.index
        self.input_learns = [like.requires_grad for like in stage.inputs]
        self.output_learns = [like.requires_grad for like in stage.outputs]
        self.deferred = Deferred.of(stage.module) if stage.defers else None
        self.fused = FusedWeights.of(stage.module) if _fuses(stage, program) else None
        halves = WholeBackward(stage.module) if stage.whole_backward else self.deferred
        self.input_gradient_of = halves.input_gradient if halves else input_gradient
        self.weight_gradient_of = halves.weight_gradient if halves else weight_gradient
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
        if self.fused is not None:
            self.fused.allow(self.ends[mb])

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


class ForwardSlots(StageSlots):
    """A stage whose outputs go on, and that keeps nothing else."""

    def forward(self, mb: int) -> None:
        super().forward(mb)
        self.leaves[mb] = self.ends[mb] = self.grads[mb] = None


def _fuses(stage: RankStage, program: RankProgram) -> bool:
    """Whether all its backwards are whole, and nobody else has a hand in its gradients."""
    ops = {action.op for action in program.actions if action.stage == stage.index}
    others = stage.weight_gradient is not None or stage.whole_backward or stage.defers
    own = program.reduction is None or isinstance(program.reduction, Reduction)
    return Op.B in ops and not {Op.I, Op.W} & ops and not others and own


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
