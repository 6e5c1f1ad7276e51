"""How a rank puts itself together: its stages, its program, its update, and what it shares with others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from pipezoo.runtime.action_timer import Recorder, recorder_for
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
from pipezoo.runtime.member import Member
from pipezoo.runtime.mesh import Groups
from pipezoo.runtime.microbatching import scaled
from pipezoo.runtime.moving_average import MovingAverage
from pipezoo.runtime.optimizing import master_of
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.rank_files import leave_values
from pipezoo.runtime.replicas import Reducing, Reduction, SharesInTurn
from pipezoo.runtime.restore import restore_random
from pipezoo.runtime.tied_parameters import TiedParameter, find_tied_parameters, join
from pipezoo.runtime.transport import NoMessages, lanes_of
from pipezoo.runtime.update import Update
from pipezoo.runtime.wiring import Wiring
from pipezoo.simulator.cost import Cost
from pipezoo.supervisor.worker_channel import Phase, WorkerChannel

if TYPE_CHECKING:
    from pipezoo.runtime.torch_replicas import Sharded


def assemble(pipeline: Pipeline, process: int, groups: Groups, device: torch.device, channel: WorkerChannel) -> Member:
    """The member of the pipeline that this process is.

    Args:
        process: its index, all processes counted.
        groups: where it stands, and with whom it shares what.
    """
    rank, owned = groups.place.pp, pipeline.stages_of(groups.place.pp)
    recorder, note = _recorder(pipeline, groups, device, channel)
    stages = _stages(pipeline, owned, groups, device)
    holding = Holding(pipeline.stages, _sharded(pipeline, owned, groups))
    parameters = {name: p for index in owned for name, p in holding.parameters(index).items()}
    finite = _finite_check(pipeline)
    update = _update(pipeline, groups, holding, device, parameters, finite)
    loss = scaled(pipeline.loss.to(device), pipeline.num_slices)
    reduction, draws = _reduction(pipeline, groups, holding), _draws(pipeline, owned)
    whole = RankProgram(
        stages=stages,
        rank=rank,
        actions=pipeline.actions[rank],
        stage_to_rank=pipeline.stage_to_rank,
        num_microbatches=pipeline.schedule.num_microbatches,
        device=device,
        loss=with_scaled_gradient(pipeline.autocast.loss(loss), update.scale, pipeline.loss_divisor),
        hops=(),
        lanes=(),
        endpoint=pipeline.transport.endpoint(rank, device, groups) if pipeline.transport else NoMessages(),
        note=note,
        draws=draws,
        reduction=reduction,
    )
    program = partial(_of_shape, pipeline, whole)
    several = len(pipeline.shares_of(groups.place)) > 1
    return Member(
        pipeline=pipeline,
        process=process,
        groups=groups,
        holding=holding,
        device=device,
        parameters=parameters,
        update=update,
        tied_parameters=_tied_parameters(pipeline, groups),
        executor=ByShape(lambda shape: pipeline.executor.of_rank(program(shape))),
        evaluator=_evaluator(pipeline, groups, device, program, channel),
        loss=loss,
        recorder=recorder,
        finite=finite,
        draws=draws,
        reduction=reduction,
        in_turn=SharesInTurn(parameters.values(), pipeline.mesh.dp) if several else None,
    )


def _recorder(
    pipeline: Pipeline, groups: Groups, device: torch.device, channel: WorkerChannel
) -> tuple[Recorder, Callable[[int], None]]:
    """What times actions, and what is called with the index of each before it runs."""
    note: Callable[[int], None] = channel.note
    if pipeline.emulated is None:
        return recorder_for(device), note
    emulation = _emulation(pipeline, pipeline.emulated, groups)
    return emulation, emulation.holding(note, pipeline.actions[groups.place.pp])


def _emulation(pipeline: Pipeline, cost: Cost, groups: Groups) -> Emulation:
    num_microbatches = pipeline.schedule.num_microbatches
    file = pipeline.file(f"devices{groups.place.dp}")
    return Emulation(cost, pipeline.stage_to_rank, num_microbatches, file)


def _stages(pipeline: Pipeline, owned: list[int], groups: Groups, device: torch.device) -> list[RankStage]:
    """The stages of this rank, cut where layers are in parts."""
    stages = [rank_stage(pipeline, index, device) for index in owned]
    if pipeline.cuts is not None and groups.device_mesh is not None:
        from pipezoo.runtime.cut_layers import cut_stages  # torch's DTensor takes its time

        cut_stages(pipeline.cuts, [stage.module for stage in stages], groups.device_mesh["tp"])
    return stages


def rank_stage(pipeline: Pipeline, index: int, device: torch.device) -> RankStage:
    module = pipeline.stages.modules[index].to(device)
    weight_gradient = None
    if pipeline.own_weight_gradient:
        module.toggle()  # type: ignore[operator]
        weight_gradient = module.compute_dW
    plan = pipeline.stages.wiring.stages[index]
    return RankStage(module, index, plan.inputs, plan.outputs, weight_gradient, pipeline.defers_on(index))  # type: ignore[arg-type]


def _of_shape(pipeline: Pipeline, whole: RankProgram, shape: int) -> RankProgram:
    """The program for one shape of batch."""
    wiring = pipeline.shapes.wirings[shape]
    stages = [_wired(pipeline, stage, wiring) for stage in whole.stages]
    return replace(whole, stages=stages, hops=wiring.hops, lanes=lanes_of(wiring.hops, pipeline.stage_to_rank))


def _wired(pipeline: Pipeline, stage: RankStage, wiring: Wiring) -> RankStage:
    """The stage for one shape of batch."""
    plan = wiring.stages[stage.index]
    module = pipeline.autocast.module(wiring.stage_module(stage.index, stage.module, copies=pipeline.executor.relays))
    return replace(stage, module=module, inputs=plan.inputs, outputs=plan.outputs, given=plan.given)


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


def _sharded(pipeline: Pipeline, owned: list[int], groups: Groups) -> dict[int, Sharded]:
    """torch's own replicas around the stages of this process, where they are asked for."""
    if groups.device_mesh is None or groups.replicas is None or pipeline.mesh.dp_with == "ordered":
        return {}
    from pipezoo.runtime.torch_replicas import Sharded  # FSDP2 takes its time

    mesh, stages = groups.device_mesh["dp"], pipeline.stages
    learns = [stage for stage in owned if stages.parameters(stage)]
    return {stage: Sharded(stages.modules[stage], stages.names[stage], pipeline.mesh.dp_with, mesh) for stage in learns}


def _reduction(pipeline: Pipeline, groups: Groups, holding: Holding) -> Reducing | None:
    """What adds up the gradients of replicas, where there are several."""
    if holding.sharded:
        from pipezoo.runtime.torch_replicas import TorchReduction

        return TorchReduction(holding.sharded)
    if groups.replicas is None:
        return None
    return Reduction(pipeline.actions[groups.place.pp], pipeline.stages.parameters, groups.replicas)


def _draws(pipeline: Pipeline, owned: list[int]) -> StageDraws | None:
    """What has the model draw its random numbers by counter; None where it draws none."""
    if pipeline.drawing is None:
        return None
    modules = [pipeline.stages.modules[index] for index in owned]
    return pipeline.drawing.in_stages(pipeline.seed, modules, pipeline.loss)


def _tied_parameters(pipeline: Pipeline, groups: Groups) -> list[TiedParameter]:
    """Those that stages of several ranks hold."""
    held = [pipeline.stages.parameters(index) for index in range(pipeline.stages.num_stages)]
    return join(find_tied_parameters(held, pipeline.stage_to_rank), pipeline.spread, pipeline.pp, groups.place)


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
