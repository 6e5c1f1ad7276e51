"""The bridge: a proved order, executed by torch's action-list runtime. The only file that names torch's private parts.

    Schedule --lower--> [[Action, ...] per rank] --here--> _PipelineScheduleRuntime.pipeline_order_with_comms

torch receives, runs, sends and accumulates. Ours are the order, the metadata (static, so that torch never runs the
model on memory that it has not filled), the losses (by microbatch, where torch files them by arrival) and the spans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import (
    _Action,
    _ComputationType,
    _PipelineScheduleRuntime,
)

from pipezoo.runtime.action_timer import Recorder
from pipezoo.runtime.activation_memory import ActivationMeter
from pipezoo.runtime.draws import StageDraws
from pipezoo.schedule.action import Action, Op

Tensors = tuple[torch.Tensor, ...]
LossFunction = Callable[[Any, torch.Tensor], torch.Tensor]


# torch 2.11 waits for a gradient of every value that crossed, later versions only of those that want one.
SENDS_EVERY_GRADIENT = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 12)


class Stage(PipelineStage):
    """A stage that notes when each of its actions ran, and sends only contiguous tensors.

    Args:
        module: takes the previous stage's outputs positionally and returns a tensor or a tuple.
        index, num_stages: its place in the pipeline.
        inputs, outputs: example tensors of one microbatch (any device), with the ``requires_grad`` they will have.
        weight_gradient: what a weight gradient runs in place of autograd's (``compute_dW`` of the stage), or None.
    """

    def __init__(
        self,
        module: nn.Module,
        index: int,
        num_stages: int,
        device: torch.device,
        inputs: Tensors,
        outputs: Tensors,
        recorder: Recorder,
        weight_gradient: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(
            module,
            index,
            num_stages,
            device,
            input_args=inputs,
            output_args=outputs,
            dw_builder=(lambda: weight_gradient) if weight_gradient else None,
        )
        self.recorder = recorder
        self.meter: ActivationMeter | None = None
        self.draws: StageDraws | None = None
        self._wants_gradient = [tensor.requires_grad for tensor in inputs]

    def _retrieve_recv_activations(self, fwd_chunk_id: int) -> tuple[Any, ...]:
        """What arrived, as new tensors: torch's are the same in every step, and a hook put on one would stay."""
        received = super()._retrieve_recv_activations(fwd_chunk_id)  # type: ignore[no-untyped-call]
        return tuple(tensor.detach().requires_grad_(tensor.requires_grad) for tensor in received)

    def forward_maybe_with_nosync(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward_maybe_with_nosync(*args, **kwargs)  # type: ignore[no-untyped-call]
        return _own(output) if isinstance(output, torch.Tensor) else tuple(map(_own, output))

    def forward_one_chunk(self, fwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        began = self._begin(Op.F)
        with self.saving(), self.drawing(fwd_chunk_id):
            output = super().forward_one_chunk(fwd_chunk_id, *args, **kwargs)
        self.recorder.end(self.stage_index, Op.F, fwd_chunk_id, began)
        return output

    def backward_one_chunk(
        self, bwd_chunk_id: int, loss: Any = None, full_backward: bool = True, last_backward: bool = False
    ) -> None:
        op = Op.B if full_backward else Op.I
        began = self._begin(op)
        inputs = self.fwd_cache[bwd_chunk_id][1]
        with self.drawing_again(bwd_chunk_id):
            super().backward_one_chunk(bwd_chunk_id, loss, full_backward, last_backward)
        if not self.is_first:
            self.bwd_cache[bwd_chunk_id] = self._sendable(self.bwd_cache[bwd_chunk_id], inputs)
        self.recorder.end(self.stage_index, op, bwd_chunk_id, began)

    def backward_weight_one_chunk(self, bwd_chunk_id: int, last_backward: bool = False) -> None:
        began = self._begin(Op.W)
        with self.drawing_again(bwd_chunk_id):
            super().backward_weight_one_chunk(bwd_chunk_id, last_backward)
        self.recorder.end(self.stage_index, Op.W, bwd_chunk_id, began)

    def _get_init_p2p_neighbors_ops(self) -> list[Any]:
        """None: torch 2.11 greets both neighbours with a message, also one that is on this very rank."""
        return []

    def saving(self) -> AbstractContextManager[Any]:
        """What is saved in here counts as this stage's activations, while a meter is set."""
        return self.meter.saving(self.stage_index) if self.meter else nullcontext()

    def drawing(self, microbatch: int) -> AbstractContextManager[Any]:
        """What is drawn in here is drawn for this microbatch."""
        return self.draws.at(self.stage_index, microbatch) if self.draws else nullcontext()

    def drawing_again(self, microbatch: int) -> AbstractContextManager[Any]:
        """What is recomputed in here draws what its forward drew."""
        return self.draws.draws.again(microbatch) if self.draws else nullcontext()

    def _begin(self, op: Op) -> object:
        if self.meter:
            self.meter.turn(self.stage_index, op)
        return self.recorder.begin()

    def _sendable(
        self, gradients: Sequence[torch.Tensor | None], inputs: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor | None, ...]:
        """Contiguous, and zeros for an input that the stage did not use but whose sender waits for a gradient."""
        ready: list[torch.Tensor | None] = []
        for gradient, tensor, wanted in zip(gradients, inputs, self._wants_gradient, strict=False):
            expected = wanted or SENDS_EVERY_GRADIENT
            if gradient is None and expected:
                gradient = torch.zeros_like(tensor)
            ready.append(gradient.contiguous() if gradient is not None and expected else None)
        return tuple(ready)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """Contiguous, for a message, and no view, which the input gradient of a backward could not detach."""
    return tensor.clone(memory_format=torch.contiguous_format) if tensor._is_view() else tensor.contiguous()


class NotifyingList(list[_Action]):
    """A list that calls ``note(i)`` before its ``i``-th element is handed out, so that others see where a rank is."""

    def __init__(self, actions: Sequence[_Action], note: Callable[[int], None]) -> None:
        super().__init__(actions)
        self._note = note

    def __iter__(self) -> Iterator[_Action]:
        for i, action in enumerate(super().__iter__()):
            self._note(i)
            yield action
        self._note(len(self))  # what is left is to wait until all messages are out

    def __deepcopy__(self, memo: object) -> list[_Action]:
        """For torch's picture of the whole order, which it draws at every error: no more than the actions."""
        return self.copy()


class TorchSchedule(_PipelineScheduleRuntime):
    """torch's runtime, given one rank's stages and the lowered actions of that rank.

    Args:
        stages: this rank's, each made by :class:`Stage`.
        rank, actions: this rank and what it executes (:func:`pipezoo.schedule.lowering.lower`).
        stage_to_rank: where every stage of the pipeline is.
        loss: takes output and target of one microbatch; already scaled.
        note: called with the index of each action before it runs.
    """

    def __init__(
        self,
        stages: list[Stage],
        rank: int,
        actions: Sequence[Action],
        stage_to_rank: Sequence[int],
        num_microbatches: int,
        loss: LossFunction,
        note: Callable[[int], None],
    ) -> None:
        super().__init__(stages, n_microbatches=num_microbatches, loss_fn=loss, scale_grads=False)  # type: ignore[no-untyped-call]
        self.stage_index_to_group_rank = dict(enumerate(stage_to_rank))
        for stage in stages:
            stage.stage_index_to_group_rank = self.stage_index_to_group_rank
        self.pipeline_order_with_comms = {rank: NotifyingList([_to_torch(action) for action in actions], note)}
        self._losses: dict[int, torch.Tensor] = {}
        self.targets: Sequence[Any] = ()  # of the microbatches of this step

    def _maybe_compute_loss(self, stage: Any, output: Any, _places: Any, mb_index: int, *_: Any) -> None:
        if stage.is_last and self._loss_fn is not None:
            with stage.saving(), stage.drawing(mb_index):
                self._losses[mb_index] = self._loss_fn(output, self.targets[mb_index])
            stage.recorder.extend()

    def _maybe_get_loss(self, stage: Any, mb_index: int) -> torch.Tensor | None:
        return self._losses[mb_index] if stage.is_last else None

    def _update_losses(self, stages: Any, losses: list[torch.Tensor] | None) -> None:
        if losses is not None:
            losses[:] = [self._losses[microbatch].detach() for microbatch in sorted(self._losses)]
        self._losses.clear()


def _to_torch(action: Action) -> _Action:
    return _Action(action.stage, _ComputationType(action.op.name), action.microbatch)
