"""What every executor is given, and what a rank asks of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from pipezoo.runtime.action_timer import Recorder
from pipezoo.runtime.activation_memory import ActivationMeter
from pipezoo.runtime.draws import StageDraws
from pipezoo.runtime.microbatching import LossFunction
from pipezoo.runtime.replicas import Reducing
from pipezoo.runtime.transport import Endpoint, Lane
from pipezoo.runtime.wiring import Hop
from pipezoo.schedule.action import Action

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class RankStage:
    """One stage of this rank.

    Args:
        module: takes ``inputs`` positionally and returns ``outputs``, a tensor or a tuple, on the rank's device.
        index: its place in the pipeline.
        inputs, outputs: examples of one microbatch, without memory, with the ``requires_grad`` they will have.
        weight_gradient: what W runs in place of autograd's (``compute_dW`` of the stage), or None.
        given: which inputs of the model it has from this rank's batch: the last ones of ``inputs``. Of the first stage,
            which has them all, none.
        whole_backward: whether its backward cannot be cut, so that I runs all of it.
        defers: whether I keeps what the products of layers need, and W runs them.
    """

    module: nn.Module
    index: int
    inputs: Tensors
    outputs: Tensors
    weight_gradient: Callable[[], None] | None = None
    defers: bool = False
    given: tuple[int, ...] = ()
    whole_backward: bool = False


@dataclass(frozen=True)
class RankProgram:
    """What one rank executes in every step.

    Args:
        stages: this rank's, in the order of the pipeline.
        actions: lowered, messages included (:func:`pipezoo.schedule.lowering.lower`).
        stage_to_rank: where every stage of the pipeline is.
        loss: takes output and target of one microbatch; already scaled.
        hops: what the stages of the pipeline hand to each other.
        lanes, endpoint: how tensors get to other ranks, and from them.
        draws: has the model draw its random numbers by counter; None where it draws none.
        reduction: adds up the gradients of replicas, where there are several.
        note: called with the index of each action before it runs, and with their number after the last.
    """

    stages: Sequence[RankStage]
    rank: int
    actions: Sequence[Action]
    stage_to_rank: Sequence[int]
    num_microbatches: int
    device: torch.device
    loss: LossFunction
    hops: Sequence[Hop]
    lanes: Sequence[Lane]
    endpoint: Endpoint
    note: Callable[[int], None]
    draws: StageDraws | None = None
    reduction: Reducing | None = None

    @property
    def num_stages(self) -> int:
        return len(self.stage_to_rank)


class RankExecutor(Protocol):
    """Runs the actions of a rank, step after step."""

    def observe(self, recorder: Recorder, meter: ActivationMeter | None) -> None:
        """From now on ``recorder`` times every action, and ``meter``, if any, counts what autograd keeps."""
        ...

    def step(self, inputs: Tensors, target: torch.Tensor | None) -> list[torch.Tensor]:
        """Run every action once; gradients are added to ``.grad``.

        Args:
            inputs: of the whole batch, where a stage of this rank takes any; else empty.
            target: of the whole batch, where it has the last one; else None.

        Returns:
            The scaled losses by microbatch, where it has the last stage; else empty.
        """
        ...
