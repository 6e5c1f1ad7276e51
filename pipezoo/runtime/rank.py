"""What one rank does, from its first line to its last."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from pipezoo.errors import VerificationError
from pipezoo.runtime.action_timer import NoRecorder, Recorder, recorder_for
from pipezoo.runtime.activation_memory import ActivationMeter
from pipezoo.runtime.by_shape import ByShape
from pipezoo.runtime.checkpoint import first_writer, write_part
from pipezoo.runtime.draws import StageDraws
from pipezoo.runtime.emulation import Emulation
from pipezoo.runtime.evaluation import NUMBER, Evaluation, evaluate, forward_only, told_to_all
from pipezoo.runtime.executor import RankExecutor, RankProgram, RankStage
from pipezoo.runtime.fault_injection import FaultInjector
from pipezoo.runtime.feed import Source, made, opened
from pipezoo.runtime.finite_check import FiniteCheck
from pipezoo.runtime.gradient_norm import GradientNorm
from pipezoo.runtime.loss_scale import LossScale, with_scaled_gradient
from pipezoo.runtime.microbatching import ScaledLoss, scaled, total
from pipezoo.runtime.moving_average import MovingAverage
from pipezoo.runtime.optimizing import master_of
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.profiler import Profiler
from pipezoo.runtime.random_state import seed_all
from pipezoo.runtime.restore import restore_random
from pipezoo.runtime.stages import inputs_of, to_dtype
from pipezoo.runtime.tied_parameters import TiedParameter, find_tied_parameters, join, sum_tied_gradients
from pipezoo.runtime.transport import NoMessages, lanes_of
from pipezoo.runtime.update import Numbers, Update
from pipezoo.runtime.wiring import Wiring
from pipezoo.simulator.cost import Cost
from pipezoo.supervisor.process_group import join_process_group
from pipezoo.supervisor.worker_channel import Phase, WorkerChannel


@dataclass(frozen=True)
class Member:
    """One rank of the pipeline, assembled: its stages, what steps them, and what it shares with others."""

    pipeline: Pipeline
    rank: int
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

    @property
    def owned(self) -> list[int]:
        return self.pipeline.stages_of(self.rank)


def run_rank(rank: int, pipeline: Pipeline, channel: WorkerChannel) -> dict[str, Any]:
    """Train this rank's stages.

    It leaves its spans in ``pipeline.scratch``, and for the verdict its gradients and parameters.

    Returns:
        ``memory``: what its stages kept for the backward, in bytes (:meth:`ActivationMeter.read`).
        ``rest``: seconds of a step outside its actions: batch, optimizer, finite check; median of the recorded steps.
    """
    channel = with_fault(channel, pipeline, rank)
    device = pipeline.rank_device(rank)
    channel.note(Phase.JOIN)
    _join_process_group(pipeline, rank, device)
    _agree(pipeline, rank, device)
    channel.note(Phase.BUILD)
    member = _assemble(pipeline, rank, device, channel)
    meter, silent = _meter(member), member.recorder if pipeline.emulated else NoRecorder()
    with opened(pipeline.batch, pipeline.steps_to_do if _eats(member) else range(0)) as feed:
        recorded, rest = _steps(member, feed, meter, silent, channel)
    channel.note(Phase.LEAVE)
    np.save(pipeline.file(f"spans{rank}.npy"), np.concatenate(recorded))
    if pipeline.verify or pipeline.leaves_weights:
        _leave_last(member)
    dist.barrier()
    return {"memory": meter.read(), "rest": float(np.median(rest))}


def _steps(
    member: Member, feed: Source, meter: ActivationMeter, silent: Recorder, channel: WorkerChannel
) -> tuple[list[Any], list[float]]:
    """All steps. The recorded spans, and the seconds of the recorded steps outside their actions."""
    pipeline, device = member.pipeline, member.device
    recorded: deque[Any] = deque(maxlen=pipeline.record_steps)
    rest: deque[float] = deque(maxlen=pipeline.record_steps)
    before, ahead = time.perf_counter(), pipeline.shapes.of_known(pipeline.steps - 1) is not None
    known = pipeline.saved.evaluations if pipeline.saved else []
    profiler = Profiler(pipeline.profile, pipeline.file(f"profile{member.rank}.json"), device)
    history = pipeline.evaluation.history(known) if pipeline.evaluation else None
    for step in pipeline.steps_to_do:
        channel.begin_step(step)
        is_recorded = pipeline.records(step)
        is_first = step == pipeline.steps_to_do.start
        told = pipeline.shapes.of_known(step) if ahead else None
        inputs, target, shape = _batch(pipeline, feed, step, member.owned, device, told)
        member.executor.choose(shape)
        member.executor.observe(member.recorder if is_recorded else silent, meter if is_first else None)
        began = time.perf_counter()
        with profiler.step(step):
            losses, numbers = train_step(member, inputs, target, step, channel)
        spans = member.recorder.take()
        ended = time.perf_counter()
        is_best = is_last = False
        if pipeline.evaluation is not None and pipeline.evaluation.follows(step):
            assert history is not None
            numbers[NUMBER] = _evaluate(member, pipeline.evaluation, channel)
            is_best, is_last = history.hear(step + 1, numbers[NUMBER]), history.ends
        before_next = time.perf_counter() if NUMBER in numbers else ended
        channel.end_step(step, began, ended, losses, numbers, before_next)
        if is_recorded:
            recorded.append(np.column_stack([np.full(len(spans), step), spans]))
            fill = spans[0, 3] - began if 0 in member.owned else 0.0  # the others wait for their first message here
            rest.append(ended - spans[-1, 4] + began - before + fill)
        if pipeline.saves_after(step, is_best, is_last):
            channel.note(Phase.SAVE)
            channel.send("saved", **_save(member, step + 1))
        before = before_next
        if is_last:
            profiler.end()
            break
    return [*recorded], [*rest]


def _evaluate(member: Member, evaluation: Evaluation, channel: WorkerChannel) -> float:
    """The loss on held-out batches, on every rank."""
    pipeline, evaluator = member.pipeline, member.evaluator
    assert evaluator is not None
    channel.note(Phase.EVALUATE)

    def batch(number: int) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None]:
        told = 0 if len(pipeline.shapes.sizes) == 1 else None
        source = partial(made, evaluation.batch)
        inputs, target, shape = _batch(pipeline, source, number, member.owned, member.device, told)
        evaluator.choose(shape)
        return inputs, target

    modules = [*(pipeline.stages.modules[index] for index in member.owned), pipeline.loss]
    losses = evaluate(evaluation, modules, evaluator, member.loss, batch)
    return told_to_all(losses, pipeline.stage_to_rank[-1], member.device)


def train_step(
    member: Member, inputs: tuple[torch.Tensor, ...], target: torch.Tensor | None, step: int, channel: WorkerChannel
) -> tuple[list[float] | None, Numbers]:
    """One step on this rank.

    Returns:
        The scaled losses of the microbatches and last their total, where the last stage is, else None; and what the
        update came to, by name.
    """
    pipeline, update = member.pipeline, member.update
    if pipeline.begins_update(step):
        update.begin()
    if member.draws is not None:
        member.draws.begin_step(step)
    with member.loss.batch(target, update.loss_factor):
        losses = member.executor.step(inputs, target)
    channel.note(Phase.UPDATE)
    member.finite.losses(step, losses)
    numbers: Numbers = {}
    if pipeline.updates_after(step):
        sum_tied_gradients(member.tied_parameters, member.parameters, member.rank)
        numbers = update.finish(step)
    return [value.item() for value in (*losses, total(losses))] if losses else None, numbers


def _assemble(pipeline: Pipeline, rank: int, device: torch.device, channel: WorkerChannel) -> Member:
    owned = pipeline.stages_of(rank)
    recorder = recorder_for(device)
    note: Callable[[int], None] = channel.note
    if pipeline.emulated is not None:
        recorder = _emulation(pipeline, pipeline.emulated)
        note = recorder.holding(note, pipeline.actions[rank])
    stages = [_stage(pipeline, index, device) for index in owned]
    parameters = {name: p for index in owned for name, p in pipeline.stages.parameters(index).items()}
    finite = _finite_check(pipeline)
    all_parameters = [pipeline.stages.parameters(index) for index in range(pipeline.stages.num_stages)]
    num_microbatches = pipeline.schedule.num_microbatches
    update = _update(pipeline, rank, device, parameters, finite)
    loss = scaled(pipeline.loss.to(device), num_microbatches)
    draws = None
    if pipeline.drawing is not None:
        modules = [pipeline.stages.modules[index] for index in owned]
        draws = pipeline.drawing.in_stages(pipeline.seed, modules, pipeline.loss)
    endpoint = pipeline.transport.endpoint(rank, device) if pipeline.transport else NoMessages()

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
        )

    return Member(
        pipeline=pipeline,
        rank=rank,
        device=device,
        parameters=parameters,
        update=update,
        tied_parameters=join(find_tied_parameters(all_parameters, pipeline.stage_to_rank)),
        executor=ByShape(lambda shape: pipeline.executor.of_rank(program(shape))),
        evaluator=_evaluator(pipeline, rank, device, program, channel),
        loss=loss,
        recorder=recorder,
        finite=finite,
        draws=draws,
    )


def _evaluator(
    pipeline: Pipeline, rank: int, device: torch.device, program: Callable[[int], RankProgram], channel: WorkerChannel
) -> ByShape | None:
    """What runs the forwards of an evaluation, with messages of its own."""
    if pipeline.evaluation is None:
        return None
    transport = pipeline.eval_transport
    endpoint = transport.endpoint(rank, device) if transport else NoMessages()

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
    pipeline: Pipeline, rank: int, device: torch.device, parameters: dict[str, nn.Parameter], finite: FiniteCheck
) -> Update:
    """What moves this rank's parameters, as it was when the checkpoint was written."""
    recipe, scaling, owned = pipeline.recipe, pipeline.precision.scaling, pipeline.stages_of(rank)
    learns = any(parameter.requires_grad for parameter in parameters.values())
    optimized = pipeline.optimizing.of(parameters) if learns else None
    averages = recipe.ema is not None and optimized is not None
    update = Update(
        recipe,
        device,
        parameters,
        optimized,
        finite,
        _norm(pipeline, rank),
        None if scaling is None else LossScale(scaling),
        MovingAverage(recipe.ema, optimized.named) if averages else None,  # type: ignore[arg-type, union-attr]
        partial(_leave_values, pipeline, rank, "first", owned) if pipeline.verify else None,
        pipeline.loss_divisor,
    )
    if pipeline.saved is not None:
        restore_random(rank, pipeline.num_processes, pipeline.saved)
        if optimized is not None:
            optimized.restore(pipeline.saved)
        update.restore(pipeline.saved.recipe)
    return update


def _norm(pipeline: Pipeline, rank: int) -> GradientNorm | None:
    """Each parameter is told by the process with the first stage that holds it."""
    if pipeline.recipe.clip is None:
        return None
    learning = {name: p for name, p in pipeline.stages.model.named_parameters() if p.requires_grad}
    held = [pipeline.stages.parameters(stage) for stage in range(pipeline.stages.num_stages)]
    learning = {name: master_of(p) if pipeline.precision.masters else p for name, p in learning.items()}
    return GradientNorm(learning, first_writer(held, pipeline.stage_to_rank.__getitem__), rank, pipeline.num_processes)


def _finite_check(pipeline: Pipeline) -> FiniteCheck:
    stages = pipeline.stages
    stage_of = {name: stage for stage in range(stages.num_stages) for name in stages.parameters(stage)}
    return FiniteCheck(pipeline.on_nonfinite, stages.num_stages - 1, stage_of, pipeline.steps_to_do.start)


def _emulation(pipeline: Pipeline, cost: Cost) -> Emulation:
    num_microbatches = pipeline.schedule.num_microbatches
    return Emulation(cost, pipeline.stage_to_rank, num_microbatches, pipeline.file("devices"))


def _meter(member: Member) -> ActivationMeter:
    """Counts in the first step, which no one times. Virtual ranks keep their own account each."""
    modules = [member.pipeline.stages.modules[index] for index in member.owned]
    resident = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return ActivationMeter(resident, member.pipeline.schedule.stage_to_rank)


def with_fault(channel: WorkerChannel, pipeline: Pipeline, rank: int) -> WorkerChannel:
    """The link, with the fault that this rank is to suffer."""
    if pipeline.fault is None or pipeline.fault.rank != rank:
        return channel
    moment = pipeline.fault.moment(pipeline.actions, pipeline.steps_to_do)
    return FaultInjector(
        channel, pipeline.fault, moment, [pipeline.stages.modules[index] for index in pipeline.stages_of(rank)]
    )


def _join_process_group(pipeline: Pipeline, rank: int, device: torch.device) -> None:
    torch.set_num_threads(pipeline.threads)
    seed_all(pipeline.seed)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    join_process_group(rank, pipeline.num_processes, pipeline.file("store"), device, pipeline.timeout)


def _agree(pipeline: Pipeline, rank: int, device: torch.device) -> None:
    """All ranks hold the same model, config and schedule, or none goes on."""
    own = bytes.fromhex(pipeline.stages.digest()) + bytes.fromhex(pipeline.identity)
    mine = torch.frombuffer(bytearray(own), dtype=torch.uint8).to(device)
    theirs = [torch.empty_like(mine) for _ in range(pipeline.num_processes)]
    dist.all_gather(theirs, mine)
    for other, digest in enumerate(theirs):
        for what, part in (("parameters", slice(0, 32)), ("config or schedule", slice(32, None))):
            if not torch.equal(digest[part], theirs[0][part]):
                raise VerificationError(f"rank {other} starts with other {what} than rank 0")


def _stage(pipeline: Pipeline, index: int, device: torch.device) -> RankStage:
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
    return replace(stage, module=module, inputs=plan.inputs, outputs=plan.outputs)


def _eats(member: Member) -> bool:
    """Whether this rank needs any of the data: it has the first stage or the last, or shapes are told by data alone."""
    pipeline = member.pipeline
    first, last = 0 in member.owned, pipeline.stages.num_stages - 1 in member.owned
    return first or last or pipeline.shapes.of_known(pipeline.steps - 1) is None


def _batch(
    pipeline: Pipeline, feed: Source, step: int, owned: list[int], device: torch.device, told: int | None
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None, int]:
    """What this rank needs of the batch: the inputs for the first stage, the target for the last; and its shape.

    Args:
        told: the shape, where it is known without the batch.
    """
    first, last, shapes = 0 in owned, pipeline.stages.num_stages - 1 in owned, pipeline.shapes
    if not (first or last) and told is not None:
        return (), None, told
    batch = feed(step)
    inputs, target = inputs_of(pipeline.stages.model, batch, pipeline.dtype), to_dtype(batch.target, pipeline.dtype)
    shape = shapes.find(step, (*inputs, target), pipeline.num_processes, pipeline.schedule.num_microbatches)
    return tuple(tensor.to(device) for tensor in inputs if first), target.to(device) if last else None, shape


def _save(member: Member, steps: int) -> dict[str, Any]:
    """Write this rank's part of the checkpoint after so many steps."""
    pipeline, stages = member.pipeline, member.pipeline.stages
    assert pipeline.checkpoints is not None
    writer = first_writer([names.values() for names in stages.names], pipeline.stage_to_rank.__getitem__)
    locked: dict[str, torch.Tensor] = dict([*stages.model.named_parameters(), *stages.model.named_buffers()])
    for stage in member.owned:
        locked |= {**stages.parameters(stage), **stages.buffers(stage)}
    own = {name: tensor for name, tensor in locked.items() if writer.get(name, 0) == member.rank}
    update = member.update
    state = None if update.optimized is None else update.optimized.capture()
    return write_part(pipeline.checkpoints, steps, member.rank, own, state, update.capture())


def _leave_last(member: Member) -> None:
    """For the verdict: what is there after the last step. Where every step was skipped, there are no gradients."""
    pipeline, update = member.pipeline, member.update
    _leave_values(pipeline, member.rank, "last", member.owned)
    averages = {} if update.average is None else update.average.capture()
    torch.save({str(member.rank): averages}, pipeline.file(f"average{member.rank}.pt"))
    if update.leave_gradients is not None:
        torch.save({str(stage): {} for stage in member.owned}, pipeline.file(f"first{member.rank}.pt"))


def _leave_values(pipeline: Pipeline, rank: int, when: str, owned: list[int]) -> None:
    """For the verdict: the gradients of the first step, or parameters and buffers after the last one."""
    values: dict[str, dict[str, torch.Tensor | None]] = {}
    for stage in owned:
        parameters = pipeline.stages.parameters(stage)
        if when == "first":
            found = {name: p.grad for name, p in parameters.items() if p.requires_grad}
        else:
            found = {**parameters, **pipeline.stages.buffers(stage)}
        values[str(stage)] = {name: None if v is None else v.detach().cpu() for name, v in found.items()}
    torch.save(values, pipeline.file(f"{when}{rank}.pt"))
