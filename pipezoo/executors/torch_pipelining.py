"""The bridge as an executor: the same order, run by ``torch.distributed.pipelining``, as torchtitan's users have it."""

from __future__ import annotations

import torch

from pipezoo.runtime.action_timer import NoRecorder, Recorder
from pipezoo.runtime.activation_memory import ActivationMeter
from pipezoo.runtime.executor import RankProgram, Tensors
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.torch_runtime import Stage, TorchSchedule
from pipezoo.runtime.transport import Transport
from pipezoo.transports.distributed import Distributed


class TorchPipelining:
    """``executor=torch``: torch's action-list runtime. It sends and receives by itself, over torch.distributed."""

    def transport(self, pipeline: Pipeline, start_method: str) -> Transport:
        return Distributed()

    def of_rank(self, program: RankProgram) -> TorchRank:
        return TorchRank(program)


class TorchRank:
    """torch's runtime, given the stages and actions of one rank."""

    def __init__(self, program: RankProgram) -> None:
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
        self._schedule.step(*inputs, target=target, losses=losses, return_outputs=False)
        return losses


def _contiguous(forms: Tensors) -> Tensors:
    """torch's messages know no other memory layout."""
    return tuple(
        torch.empty_like(f, memory_format=torch.contiguous_format, requires_grad=f.requires_grad) for f in forms
    )
