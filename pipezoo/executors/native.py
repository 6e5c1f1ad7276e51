"""The native executor: the lowered order of a rank, compiled once into a flat program.

    actions    1RECV_F0   1F0         1SEND_F0   1RECV_B0   1B0          1SEND_B0
    program    receive    forward     send       receive    backward     send        each bound to its slots
    slots      inputs[0] ────► outputs[0] ──►    grads[0] ─────► input_grads[0] ──►

What each call does is in ``stage_slots.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from pipezoo.executors.compiled import check_compiles, compiled
from pipezoo.executors.skips import crossings
from pipezoo.executors.stage_slots import ForwardSlots, StageSlots
from pipezoo.runtime.action_timer import Recorder
from pipezoo.runtime.activation_memory import ActivationMeter
from pipezoo.runtime.executor import RankProgram, Tensors
from pipezoo.runtime.microbatching import microbatches
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.replicas import Reducing
from pipezoo.runtime.transport import Transport
from pipezoo.schedule.action import COMPUTE, OF_A_STAGE, Action, Op
from pipezoo.transports.choose import TRANSPORTS, transport_for
from pipezoo.validators import check_bool, check_word


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


class ForwardRank(NativeRank):
    """The executor of one rank in an evaluation."""

    slots = ForwardSlots


def _nothing() -> None:
    pass
