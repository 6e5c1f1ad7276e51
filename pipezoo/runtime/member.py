"""One rank of a pipeline, assembled: its stages, what steps them, and what it shares with others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from pipezoo.runtime.action_timer import NoRecorder, Recorder, recorder_for
from pipezoo.runtime.activation_memory import ActivationMeter
from pipezoo.runtime.by_shape import ByShape
from pipezoo.runtime.checkpoint import first_writer
from pipezoo.runtime.draws import StageDraws
from pipezoo.runtime.emulation import Emulation
from pipezoo.runtime.evaluation import forward_only
from pipezoo.runtime.executor import RankExecutor, RankProgram, RankStage
from pipezoo.runtime.finite_check import FiniteCheck
from pipezoo.runtime.gradient_norm import GradientNorm
from pipezoo.runtime.holding import Holding
from pipezoo.runtime.loss_scale import LossScale, with_scaled_gradient
from pipezoo.runtime.mesh import Groups
from pipezoo.runtime.microbatching import ScaledLoss, of_batch, scaled, total
from pipezoo.runtime.moving_average import MovingAverage
from pipezoo.runtime.optimizing import master_of
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.rank_files import leave_values
from pipezoo.runtime.replicas import Reducing, Reduction, SharesInTurn, check_equal
from pipezoo.runtime.restore import restore_random
from pipezoo.runtime.shares import Shares
from pipezoo.runtime.tied_parameters import TiedParameter, find_tied_parameters, join
from pipezoo.runtime.transport import NoMessages, lanes_of
from pipezoo.runtime.update import Update
from pipezoo.runtime.whole import is_cut, local
from pipezoo.runtime.wiring import Wiring
from pipezoo.simulator.cost import Cost
from pipezoo.supervisor.worker_channel import Phase, WorkerChannel

if TYPE_CHECKING:
    from pipezoo.runtime.torch_replicas import Sharded


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


def assemble(pipeline: Pipeline, process: int, groups: Groups, device: torch.device, channel: WorkerChannel) -> Member:
    rank, owned = groups.place.pp, pipeline.stages_of(groups.place.pp)
    recorder = recorder_for(device)
    note: Callable[[int], None] = channel.note
    if pipeline.emulated is not None:
        recorder = _emulation(pipeline, pipeline.emulated, groups)
        note = recorder.holding(note, pipeline.actions[rank])
    stages = [rank_stage(pipeline, index, device) for index in owned]
    if pipeline.cuts is not None and groups.device_mesh is not None:
        from pipezoo.runtime.cut_layers import cut_stages  # torch's DTensor takes its time

        cut_stages(pipeline.cuts, [stage.module for stage in stages], groups.device_mesh["tp"])
    holding = Holding(pipeline.stages, _sharded(pipeline, owned, groups))
    parameters = {name: p for index in owned for name, p in holding.parameters(index).items()}
    finite = _finite_check(pipeline)
    all_parameters = [pipeline.stages.parameters(index) for index in range(pipeline.stages.num_stages)]
    num_microbatches = pipeline.schedule.num_microbatches
    update = _update(pipeline, groups, holding, device, parameters, finite)
    loss = scaled(pipeline.loss.to(device), pipeline.num_slices)
    reduction: Reducing | None = None
    if holding.sharded:
        from pipezoo.runtime.torch_replicas import TorchReduction

        reduction = TorchReduction(holding.sharded)
    elif groups.replicas is not None:
        reduction = Reduction(pipeline.actions[rank], pipeline.stages.parameters, groups.replicas)
    draws = None
    if pipeline.drawing is not None:
        modules = [pipeline.stages.modules[index] for index in owned]
        draws = pipeline.drawing.in_stages(pipeline.seed, modules, pipeline.loss)
    endpoint = pipeline.transport.endpoint(rank, device, groups) if pipeline.transport else NoMessages()

    def program(shape: int) -> RankProgram:
        wiring = pipeline.shapes.wirings[shape]
        return RankProgram(
            stages=[_wired(pipeline, stage, wiring) for stage in stages],
            rank=rank,
            actions=pipeline.actions[rank],
            stage_to_rank=pipeline.stage_to_rank,
            num_microbatches=num_microbatches,
            device=device,
            loss=with_scaled_gradient(pipeline.autocast.loss(loss), update.scale, pipeline.loss_divisor),
            hops=wiring.hops,
            lanes=lanes_of(wiring.hops, pipeline.stage_to_rank),
            endpoint=endpoint,
            note=note,
            draws=draws,
            reduction=reduction,
        )

    several = len(pipeline.shares_of(groups.place)) > 1
    return Member(
        pipeline=pipeline,
        process=process,
        groups=groups,
        holding=holding,
        device=device,
        parameters=parameters,
        update=update,
        tied_parameters=join(
            find_tied_parameters(all_parameters, pipeline.stage_to_rank), pipeline.spread, pipeline.pp, groups.place
        ),
        executor=ByShape(lambda shape: pipeline.executor.of_rank(program(shape))),
        evaluator=_evaluator(pipeline, groups, device, program, channel),
        loss=loss,
        recorder=recorder,
        finite=finite,
        draws=draws,
        reduction=reduction,
        in_turn=SharesInTurn(parameters.values(), pipeline.mesh.dp) if several else None,
    )


def _evaluator(
    pipeline: Pipeline,
    groups: Groups,
    device: torch.device,
    program: Callable[[int], RankProgram],
    channel: WorkerChannel,
) -> ByShape | None:
    """What runs the forwards of an evaluation, with messages of its own."""
    if pipeline.evaluation is None:
        return None
    transport = pipeline.eval_transport
    endpoint = transport.endpoint(groups.place.pp, device, groups) if transport else NoMessages()

    def of_shape(shape: int) -> RankExecutor:
        training = program(shape)
        forwards = replace(
            training,
            actions=forward_only(training.actions),
            lanes=[lane for lane in training.lanes if not lane.is_backward],
            endpoint=endpoint,
            note=lambda index: channel.note(Phase.EVALUATE),
            draws=None,
        )
        return pipeline.executor.forward_only(forwards)

    return ByShape(of_shape)


def _update(
    pipeline: Pipeline,
    groups: Groups,
    holding: Holding,
    device: torch.device,
    parameters: dict[str, nn.Parameter],
    finite: FiniteCheck,
) -> Update:
    """What moves this rank's parameters, as it was when the checkpoint was written."""
    recipe, scaling, rank = pipeline.recipe, pipeline.precision.scaling, groups.place.pp
    leaves = pipeline.verify and (groups.place.dp == 0 or holding.is_split)
    writes = pipeline.spread.process(groups.place, pipeline.pp) in pipeline.writers
    learns = any(parameter.requires_grad for parameter in parameters.values())
    optimized = pipeline.optimizing.of(parameters) if learns else None
    averages = recipe.ema is not None and optimized is not None
    update = Update(
        recipe,
        device,
        parameters,
        optimized,
        finite,
        _norm(pipeline, groups, holding),
        None if scaling is None else LossScale(scaling),
        MovingAverage(recipe.ema, optimized.named) if averages else None,  # type: ignore[arg-type, union-attr]
        partial(leave_values, pipeline, holding, rank, "first", writes) if leaves else None,
        pipeline.loss_divisor,
    )
    if pipeline.saved is not None:
        restore_random(rank, pipeline.pp, pipeline.saved)
        if optimized is not None:
            optimized.restore(replace(pipeline.saved, optimizers=holding.own(pipeline.saved.optimizers)))
        update.restore(holding.own(pipeline.saved.recipe))
    return update


def _norm(pipeline: Pipeline, groups: Groups, holding: Holding) -> GradientNorm | None:
    """Each parameter is told by the rank with the first stage that holds it, in each replica anew."""
    if pipeline.recipe.clip is None:
        return None
    learning = {name: p for name, p in pipeline.stages.model.named_parameters() if p.requires_grad}
    held = [pipeline.stages.parameters(stage) for stage in range(pipeline.stages.num_stages)]
    if pipeline.precision.masters:
        learning = {name: master_of(nn.Parameter(torch.empty(0, dtype=p.dtype))) for name, p in learning.items()}
    writer = first_writer(held, pipeline.stage_to_rank.__getitem__)
    return GradientNorm(learning, writer, groups.place.pp, groups.pipeline, holding.whole_tensor)


def _finite_check(pipeline: Pipeline) -> FiniteCheck:
    stages = pipeline.stages
    stage_of = {name: stage for stage in range(stages.num_stages) for name in stages.parameters(stage)}
    return FiniteCheck(pipeline.on_nonfinite, stages.num_stages - 1, stage_of, pipeline.steps_to_do.start)


def _emulation(pipeline: Pipeline, cost: Cost, groups: Groups) -> Emulation:
    num_microbatches = pipeline.schedule.num_microbatches
    file = pipeline.file(f"devices{groups.place.dp}")
    return Emulation(cost, pipeline.stage_to_rank, num_microbatches, file)


def meter_of(member: Member) -> ActivationMeter:
    """Counts in the first step, which no one times. Virtual ranks keep their own account each."""
    modules = [member.pipeline.stages.modules[index] for index in member.owned]
    for sharded in member.holding.sharded.values():
        sharded.unshard()  # so that what is gathered is known as parameters
    resident = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return ActivationMeter(map(local, resident), member.pipeline.schedule.stage_to_rank)


def _sharded(pipeline: Pipeline, owned: list[int], groups: Groups) -> dict[int, Sharded]:
    """torch's own replicas around the stages of this process, where they are asked for."""
    if groups.device_mesh is None or groups.replicas is None or pipeline.mesh.dp_with == "ordered":
        return {}
    from pipezoo.runtime.torch_replicas import Sharded  # FSDP2 takes its time

    mesh, stages = groups.device_mesh["dp"], pipeline.stages
    learns = [stage for stage in owned if stages.parameters(stage)]
    return {stage: Sharded(stages.modules[stage], stages.names[stage], pipeline.mesh.dp_with, mesh) for stage in learns}


def rank_stage(pipeline: Pipeline, index: int, device: torch.device) -> RankStage:
    module = pipeline.stages.modules[index].to(device)
    weight_gradient = None
    if pipeline.own_weight_gradient:
        module.toggle()  # type: ignore[operator]
        weight_gradient = module.compute_dW
    plan = pipeline.stages.wiring.stages[index]
    return RankStage(module, index, plan.inputs, plan.outputs, weight_gradient, pipeline.defers_on(index))  # type: ignore[arg-type]


def _wired(pipeline: Pipeline, stage: RankStage, wiring: Wiring) -> RankStage:
    """The stage for one shape of batch."""
    plan = wiring.stages[stage.index]
    module = pipeline.autocast.module(wiring.stage_module(stage.index, stage.module, copies=pipeline.executor.relays))
    return replace(stage, module=module, inputs=plan.inputs, outputs=plan.outputs, given=plan.given)
