"""One rank of a pipeline, assembled (``assemble.py``): what it holds, and how it trains its shares of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from pipezoo.runtime.action_timer import NoRecorder, Recorder
from pipezoo.runtime.activation_memory import ActivationMeter
from pipezoo.runtime.by_shape import ByShape
from pipezoo.runtime.draws import StageDraws
from pipezoo.runtime.finite_check import FiniteCheck
from pipezoo.runtime.holding import Holding
from pipezoo.runtime.mesh import Groups
from pipezoo.runtime.microbatching import ScaledLoss, of_batch, total
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.replicas import Reducing, SharesInTurn, check_equal
from pipezoo.runtime.shares import Shares
from pipezoo.runtime.tied_parameters import TiedParameter
from pipezoo.runtime.update import Update
from pipezoo.runtime.whole import is_cut, local


@dataclass(frozen=True)
class Member:
    """One rank of the pipeline, assembled: its stages, what steps them, and what it shares with others."""

    pipeline: Pipeline
    process: int
    groups: Groups
    holding: Holding
    device: torch.device
    parameters: dict[str, nn.Parameter]
    update: Update
    tied_parameters: list[TiedParameter]
    executor: ByShape
    evaluator: ByShape | None
    loss: ScaledLoss
    finite: FiniteCheck
    recorder: Recorder
    draws: StageDraws | None
    reduction: Reducing | None
    in_turn: SharesInTurn | None

    @property
    def rank(self) -> int:
        """Of the pipeline."""
        return self.groups.place.pp

    @property
    def writes(self) -> bool:
        """Whether it is the one that writes down what all replicas of its stages hold."""
        return self.process in self.pipeline.writers

    @property
    def tells(self) -> bool:
        """Whether what it holds is written down: by itself, or by the one that it shares its stages with."""
        return self.groups.place.dp == 0 or self.holding.is_split

    @property
    def shares(self) -> range:
        """The replicas whose rows it trains."""
        return self.pipeline.shares_of(self.groups.place)

    @property
    def owned(self) -> list[int]:
        return self.pipeline.stages_of(self.rank)

    def begin_update(self) -> None:
        """Before the first gradient of an update."""
        if self.in_turn is not None:
            self.in_turn.begin()

    def train(self, batch: Shares, step: int, updates: bool, factor: float) -> list[float] | None:
        """Forwards and backwards of its shares, one after the other; of several, the first one is timed.

        Args:
            updates: whether the gradients of this step are the last before an update.
            factor: what the gradients of all losses are multiplied by.

        Returns:
            The scaled losses of the microbatches and last their total, where the last stage is; else None.
        """
        size, found = self.pipeline.schedule.num_microbatches, []
        if self.reduction is not None:
            self.reduction.is_due = updates
        if self.draws is not None:
            self.draws.begin_step(step)
        with self.loss.batch(batch.target, factor):
            for number, (share, (inputs, target)) in enumerate(zip(self.shares, batch.rows, strict=True)):
                if number == 1:
                    self.executor.observe(NoRecorder(), None)
                if self.draws is not None:
                    self.draws.begin_share(share * size)
                if self.in_turn is not None:
                    self.in_turn.enter(share)
                losses = self.executor.step(inputs, target)
                if self.in_turn is not None:
                    self.in_turn.leave(share)
                if losses:
                    found.append([value.item() for value in (*losses, total(losses))])
                    self.finite.losses(step, found[-1][:-1], share * size)
        if self.in_turn is not None and updates:
            self.in_turn.add()
        return of_batch(found) if found and not self.groups.place.tp else None

    def check_replicas(self, when: str) -> None:
        """Raises VerificationError where the replicas of its stages are not equal."""
        if self.groups.replicas is not None and not self.holding.is_split:
            check_equal(self.parameters, self.groups.replicas, when)
        if self.groups.shards is not None:
            uncut = {name: p for name, p in self.parameters.items() if not is_cut(p)}
            check_equal(uncut, self.groups.shards, when, "part")


def meter_of(member: Member) -> ActivationMeter:
    """Counts in the first step, which no one times. Virtual ranks keep their own account each."""
    modules = [member.pipeline.stages.modules[index] for index in member.owned]
    for sharded in member.holding.sharded.values():
        sharded.unshard()  # so that what is gathered is known as parameters
    resident = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return ActivationMeter(map(local, resident), member.pipeline.schedule.stage_to_rank)
