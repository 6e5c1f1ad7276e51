"""The bridge as an executor: the same order, run by ``torch.distributed.pipelining``, as torchtitan's users have it."""

from __future__ import annotations

import torch
from torch import nn

from pipezoo.executors.native import ForwardRank
from pipezoo.executors.split_backward import beside_every_input
from pipezoo.runtime.action_timer import NoRecorder, Recorder
from pipezoo.runtime.activation_memory import ActivationMeter
from pipezoo.runtime.executor import RankProgram, Tensors
from pipezoo.runtime.hooks import has_hook_after_accumulation
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.torch_runtime import Stage, TorchSchedule
from pipezoo.runtime.transport import Transport
from pipezoo.transports.distributed import Distributed

REFUSED = "the split backward of executor=torch leaves out"
INSTEAD = "valid: executor=native, or a schedule of full backwards"


class TorchPipelining:
    """``executor=torch``: torch's action-list runtime. It sends and receives by itself, over torch.distributed.

    Its stages talk to their neighbours alone, so every stage between hands a skip on.
    """

    relays = True
    defers = False
    keeps_bits = True

    def inspect(
        self, index: int, stage: nn.Module, copy: nn.Module, ends: list[torch.Tensor], leaves: list[torch.Tensor]
    ) -> None:
        """Refuse what torch's split backward leaves out: parameters beside the inputs, hooks after accumulation."""
        lost = {id(parameter) for parameter in beside_every_input(ends, leaves)} if leaves else set()
        names = [name for name, parameter in copy.named_parameters() if id(parameter) in lost]
        hooked = [name for name, parameter in stage.named_parameters() if has_hook_after_accumulation(parameter)]
        if names:
            raise ValueError(f"{REFUSED} {names[0]} on stage {index}, which no input leads to; {INSTEAD}")
        if hooked:
            raise ValueError(f"{REFUSED} the hook after accumulation of {hooked[0]} on stage {index}; {INSTEAD}")

    def check(self, pipeline: Pipeline) -> None:
        """It runs every pipeline whose stages passed ``inspect``, and whose last one returns tensors."""
        kinds = [child.kind for child in pipeline.stages.wiring.stages[-1].result.children]
        if kind := next(filter(None, kinds), None):
            raise ValueError(f"takes no output that is a {kind.__name__}; valid: executor=native, or model.output")

    def transport(self, pipeline: Pipeline, start_method: str) -> Transport:
        return Distributed()

    def of_rank(self, program: RankProgram) -> TorchRank:
        return TorchRank(program)

    def forward_only(self, program: RankProgram) -> ForwardRank:
        """torch's runtime keeps every output for a backward; ours does not."""
        return ForwardRank(program)


class TorchRank:
    """torch's runtime, given the stages and actions of one rank."""

    def __init__(self, program: RankProgram) -> None:
        self._size = program.num_microbatches
        self._stages = [
            Stage(
                s.module,
                s.index,
                program.num_stages,
                program.device,
                _contiguous(s.inputs),
                _contiguous(s.outputs),
                NoRecorder(),
                s.weight_gradient,
            )
            for s in program.stages
        ]
        for stage in self._stages:
            stage.draws = program.draws
        self._schedule = TorchSchedule(
            self._stages,
            program.rank,
            program.actions,
            program.stage_to_rank,
            program.num_microbatches,
            program.loss,
            program.note,
        )

    def observe(self, recorder: Recorder, meter: ActivationMeter | None) -> None:
        for stage in self._stages:
            stage.recorder, stage.meter = recorder, meter

    def step(self, inputs: Tensors, target: torch.Tensor | None) -> list[torch.Tensor]:
        losses: list[torch.Tensor] = []
        size = self._size
        self._schedule.targets = () if target is None else torch.tensor_split(target, size)
        places = None if target is None else torch.arange(size)  # torch cuts tensors alone, and a target may be several
        self._schedule.step(*inputs, target=places, losses=losses, return_outputs=False)
        return losses


def _contiguous(forms: Tensors) -> Tensors:
    """torch's messages know no other memory layout."""
    return tuple(
        torch.empty_like(f, memory_format=torch.contiguous_format, requires_grad=f.requires_grad) for f in forms
    )
