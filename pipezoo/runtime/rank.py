"""What one rank does, from its first line to its last."""

from __future__ import annotations

import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from pipezoo.errors import VerificationError
from pipezoo.launch.mesh import Place
from pipezoo.runtime.action_timer import NoRecorder, Recorder, Spans
from pipezoo.runtime.activation_memory import ActivationMeter
from pipezoo.runtime.assemble import assemble
from pipezoo.runtime.evaluation import NUMBER, Evaluation, evaluate, told_to_all
from pipezoo.runtime.fault_injection import FaultInjector
from pipezoo.runtime.feed import Source, made, opened
from pipezoo.runtime.judged import judged_by, tensors_in
from pipezoo.runtime.member import Member, meter_of
from pipezoo.runtime.mesh import gathered, groups_of
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.profiler import Profiler
from pipezoo.runtime.random_state import seed_all
from pipezoo.runtime.rank_files import leave_last, save_part
from pipezoo.runtime.rank_memory import let_go_of_others, private_bytes
from pipezoo.runtime.shares import Shares
from pipezoo.runtime.stages import inputs_of
from pipezoo.runtime.tied_parameters import sum_tied_gradients
from pipezoo.runtime.update import Numbers
from pipezoo.schedule.action import Op
from pipezoo.supervisor.process_group import join_process_group
from pipezoo.supervisor.worker_channel import Phase, WorkerChannel


def run_rank(process: int, pipeline: Pipeline, channel: WorkerChannel) -> dict[str, Any]:
    """Train the stages of the rank that a process is.

    It leaves its spans in ``pipeline.scratch``, and for the verdict its gradients and parameters; of replicas, the
    first does.

    Returns:
        ``memory``: what its stages kept for the backward, in bytes (:meth:`ActivationMeter.read`).
        ``rest``: seconds of a step outside its actions: batch, optimizer, finite check; median of the recorded steps.
        ``private``: bytes that this process alone holds after the last step; None where the system does not tell.
    """
    channel = with_fault(channel, pipeline, process)
    device = pipeline.rank_device(process)
    channel.note(Phase.JOIN)
    _join_process_group(pipeline, process, device)
    _agree(pipeline, device)
    channel.note(Phase.BUILD)
    groups = groups_of(pipeline.spread, pipeline.pp, process, device)
    let_go_of_others(pipeline, groups.place.pp)
    member = assemble(pipeline, process, groups, device, channel)
    rank = member.rank
    meter, silent = meter_of(member), member.recorder if pipeline.emulated else NoRecorder()
    with opened(pipeline.batch, pipeline.steps_to_do if _eats(member) else range(0)) as feed:
        recorded, rest = _steps(member, feed, meter, silent, channel)
    channel.note(Phase.LEAVE)
    private = private_bytes()
    member.check_replicas("after the last step")
    if member.writes:
        np.save(pipeline.file(f"spans{rank}.npy"), np.concatenate(recorded))
    if member.tells and (pipeline.verify or pipeline.leaves_weights):
        leave_last(pipeline, member.holding, rank, member.update, member.writes)
    dist.barrier()
    return {"memory": meter.read(), "rest": float(np.median(rest)), "private": private}


def _steps(
    member: Member, feed: Source, meter: ActivationMeter, silent: Recorder, channel: WorkerChannel
) -> tuple[list[Any], list[float]]:
    """All steps. The recorded spans, and the seconds of the recorded steps outside their actions."""
    pipeline, device = member.pipeline, member.device
    recorded: deque[Any] = deque(maxlen=pipeline.record_steps)
    rest: deque[float] = deque(maxlen=pipeline.record_steps)
    before, ahead = time.perf_counter(), pipeline.shapes.of_known(pipeline.steps - 1) is not None
    known = pipeline.saved.evaluations if pipeline.saved else []
    profiler = Profiler(pipeline.profile, pipeline.file(f"profile{member.process}.json"), device)
    history = pipeline.evaluation.history(known) if pipeline.evaluation else None
    for step in pipeline.steps_to_do:
        channel.begin_step(step)
        is_recorded = pipeline.records(step)
        is_first = step == pipeline.steps_to_do.start
        told = pipeline.shapes.of_known(step) if ahead else None
        batch, shape = _batch(member, feed, step, told)
        member.executor.choose(shape)
        member.executor.observe(member.recorder if is_recorded else silent, meter if is_first else None)
        began = time.perf_counter()
        with profiler.step(step):
            losses, numbers = train_step(member, batch, step, channel)
        spans = member.recorder.take()
        ended = time.perf_counter()
        is_best = is_last = False
        if pipeline.evaluation is not None and pipeline.evaluation.follows(step):
            assert history is not None
            numbers[NUMBER] = _evaluate(member, pipeline.evaluation, channel)
            member.update.hear(numbers[NUMBER])
            is_best, is_last = history.hear(step + 1, numbers[NUMBER]), history.ends
        before_next = time.perf_counter() if NUMBER in numbers else ended
        channel.end_step(step, began, ended, losses, numbers, before_next)
        if is_recorded:
            recorded.append(np.column_stack([np.full(len(spans), step), spans]))
            fill = spans[0, 3] - began if 0 in member.owned else 0.0  # the others wait for their first message here
            rest.append(ended - _end_of_actions(spans) + began - before + fill)
        if pipeline.saves_after(step, is_best, is_last) or channel.is_asked_to_save(step + 1):
            channel.note(Phase.SAVE)
            if member.tells:
                part = save_part(pipeline, member.holding, member.rank, member.update, step + 1, member.writes)
                if member.writes:
                    channel.send("saved", **part)
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

    def batch(number: int) -> Shares:
        told = 0 if len(pipeline.shapes.sizes) == 1 else None
        found, shape = _batch(member, partial(made, evaluation.batch), number, told)
        evaluator.choose(shape)
        return found

    modules = [*(pipeline.stages.modules[index] for index in member.owned), pipeline.loss]
    with _evaluated_weights(member, evaluation):
        losses = evaluate(evaluation, modules, evaluator, member.loss, batch)
    for sharded in member.holding.sharded.values():  # the forwards have gathered what the next update moves
        sharded.reshard()
    last = [
        pipeline.spread.process(Place(pipeline.stage_to_rank[-1], dp), pipeline.pp) for dp in range(pipeline.spread.dp)
    ]
    return told_to_all(losses, last, evaluation.num_batches, pipeline.mesh.dp, member.device)


def _evaluated_weights(member: Member, evaluation: Evaluation) -> AbstractContextManager[None]:
    """Inside, the parameters are those that are evaluated."""
    average = member.update.average
    if evaluation.options.weights == "model" or average is None:
        return nullcontext()
    return average.in_place_of(member.parameters)


def _end_of_actions(spans: Spans) -> float:
    """When the last computation ended. What gradients of replicas took before it counts as behind it."""
    reduces = spans[:, 1] >= Op.UNSHARD
    end: float = spans[~reduces, 4].max()
    between = spans[reduces & (spans[:, 3] < end)]
    return end - float((between[:, 4] - between[:, 3]).sum())


def train_step(member: Member, batch: Shares, step: int, channel: WorkerChannel) -> tuple[list[float] | None, Numbers]:
    """One step on this rank.

    Returns:
        The scaled losses of the microbatches and last their total, where the last stage is, else None; and what the
        update came to, by name.
    """
    pipeline, update = member.pipeline, member.update
    if pipeline.begins_update(step):
        update.begin()
        member.begin_update()
    updates = pipeline.updates_after(step)
    losses = member.train(batch, step, updates, update.loss_factor)
    channel.note(Phase.UPDATE)
    numbers: Numbers = {}
    if updates:
        sum_tied_gradients(member.tied_parameters, member.parameters, member.rank)
        numbers = update.finish(step)
        if step < pipeline.steps_to_do.start + pipeline.recipe.accumulate:
            member.check_replicas("after its first update")
    return losses, numbers


def with_fault(channel: WorkerChannel, pipeline: Pipeline, process: int) -> WorkerChannel:
    """The link, with the fault that this process is to suffer."""
    if pipeline.fault is None or pipeline.fault.rank != process:
        return channel
    moment = pipeline.fault.moment(*pipeline.where_faults_strike)
    owned = pipeline.stages_of(pipeline.place(process).pp)
    return FaultInjector(channel, pipeline.fault, moment, [pipeline.stages.modules[index] for index in owned])


def _join_process_group(pipeline: Pipeline, process: int, device: torch.device) -> None:
    torch.set_num_threads(pipeline.threads)
    seed_all(pipeline.seed)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store = pipeline.store or pipeline.file("store")
    join_process_group(process, pipeline.num_processes, store, device, pipeline.timeout)


def _agree(pipeline: Pipeline, device: torch.device) -> None:
    """All processes hold the same model, config and schedule, or none goes on."""
    own = bytes.fromhex(pipeline.stages.digest()) + bytes.fromhex(pipeline.identity)
    mine = torch.frombuffer(bytearray(own), dtype=torch.uint8).to(device)
    theirs = gathered(mine, dist.group.WORLD)
    for other, digest in enumerate(theirs):
        for what, part in (("parameters", slice(0, 32)), ("config or schedule", slice(32, None))):
            if not torch.equal(digest[part], theirs[0][part]):
                raise VerificationError(f"rank {other} starts with other {what} than rank 0")


def _eats(member: Member) -> bool:
    """Whether this rank needs any of the data: a stage takes some, or shapes are told by data alone."""
    pipeline = member.pipeline
    last = pipeline.stages.num_stages - 1 in member.owned
    return last or bool(_taken(pipeline, member.owned)) or pipeline.shapes.of_known(pipeline.steps - 1) is None


def _taken(pipeline: Pipeline, owned: list[int]) -> set[int]:
    """Which inputs of the model these stages take from the batch: the first one all, any other those it uses."""
    plans = pipeline.shapes.wirings[0].stages
    first = range(len(pipeline.shapes.first) - 1) if 0 in owned else ()
    return {*first, *(number for stage in owned for number in plans[stage].given)}


def _batch(member: Member, feed: Source, step: int, told: int | None) -> tuple[Shares, int]:
    """What this rank needs of the batch: the inputs that its stages take, the target for the last; and its shape.

    Args:
        told: the shape, where it is known without the batch.
    """
    pipeline, shapes = member.pipeline, member.pipeline.shapes
    taken, last = _taken(pipeline, member.owned), pipeline.stages.num_stages - 1 in member.owned
    if not (taken or last) and told is not None:
        return Shares.none(member.shares), told
    batch = feed(step)
    model = pipeline.stages.model
    inputs = inputs_of(model, batch, pipeline.dtype)
    target = judged_by(pipeline.loss, model, batch, pipeline.dtype)
    shape = shapes.find(step, (*inputs, *tensors_in(target)), pipeline.num_processes, pipeline.num_slices)
    own = Shares.of(inputs if taken else (), target if last else None, member.shares, pipeline.mesh.dp)
    return own.to(member.device), shape
