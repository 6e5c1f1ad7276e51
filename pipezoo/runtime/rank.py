"""What one rank does, from its first line to its last."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from pipezoo.errors import NonFiniteError, VerificationError
from pipezoo.runtime.launch import Link
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.recorder import Recorder, recorder_for
from pipezoo.runtime.stages import inputs_of, to_dtype
from pipezoo.runtime.step import first_nonfinite, scaled, total
from pipezoo.runtime.ties import Tie, find_ties, join, sum_tied_gradients
from pipezoo.runtime.torch_schedule import Stage, TorchSchedule


def run_rank(pipeline: Pipeline, rank: int, link: Link) -> None:
    """Train this rank's stages and leave its spans, and for the verdict its gradients and parameters, in
    ``pipeline.scratch``."""
    device = pipeline.rank_device(rank)
    _enter_world(pipeline, rank, device)
    owned = pipeline.stages_of(rank)
    _agree(pipeline, rank, device)
    recorder = recorder_for(device)
    stages = [_stage(pipeline, index, device, recorder) for index in owned]
    parameters = {name: p for index in owned for name, p in pipeline.stages.parameters(index).items()}
    ties = join(
        find_ties([pipeline.stages.parameters(i) for i in range(pipeline.stages.num_stages)], pipeline.stage_to_rank)
    )
    learning = [p for p in parameters.values() if p.requires_grad]
    optimizer = pipeline.optimizer(learning) if learning else None
    loss = scaled(pipeline.loss.to(device), pipeline.schedule.num_microbatches)
    schedule = TorchSchedule(
        stages,
        rank,
        pipeline.actions[rank],
        pipeline.stage_to_rank,
        pipeline.schedule.num_microbatches,
        loss,
        link.note,
    )
    recorded = []
    for step in range(pipeline.steps):
        link.begin_step(step)
        inputs, target = _batch(pipeline, step, owned, device)
        began = time.perf_counter()
        losses = train_step(pipeline, schedule, optimizer, ties, parameters, rank, inputs, target, step)
        spans = recorder.take()
        link.end_step(step, began, time.perf_counter(), losses)
        if step >= pipeline.steps - pipeline.record_steps:
            recorded.append(np.column_stack([np.full(len(spans), step), spans]))
    np.save(pipeline.file(f"spans{rank}.npy"), np.concatenate(recorded))
    if pipeline.verify:
        _leave_values(pipeline, rank, "last", owned)
    dist.barrier()


def train_step(
    pipeline: Pipeline,
    schedule: TorchSchedule,
    optimizer: torch.optim.Optimizer | None,
    ties: list[Tie],
    parameters: dict[str, nn.Parameter],
    rank: int,
    inputs: tuple[torch.Tensor, ...],
    target: torch.Tensor | None,
    step: int,
) -> list[float] | None:
    """One step on this rank. Returns the scaled losses of the microbatches and last their total, where the last stage
    is."""
    if optimizer is not None:
        optimizer.zero_grad(set_to_none=True)
    losses: list[torch.Tensor] = []
    schedule.step(*inputs, target=target, losses=losses, return_outputs=False)
    if losses and pipeline.on_nonfinite != "ignore" and (bad := first_nonfinite(losses)) is not None:
        text = f"step {step}: the loss of microbatch {bad} is {losses[bad].item()}"
        if pipeline.on_nonfinite == "stop":
            raise NonFiniteError(f"{text}; a smaller optimizer.lr may help, or on_nonfinite=warn")
    sum_tied_gradients(ties, parameters, rank)
    if pipeline.verify and step == 0:
        _leave_values(pipeline, rank, "first", pipeline.stages_of(rank))
    if optimizer is not None:
        optimizer.step()
    return [value.item() for value in (*losses, total(losses))] if losses else None


def _enter_world(pipeline: Pipeline, rank: int, device: torch.device) -> None:
    torch.set_num_threads(pipeline.threads)
    torch.manual_seed(pipeline.seed)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if os.uname().sysname == "Darwin" else "lo"
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if gpu else "gloo",
        init_method=f"file://{pipeline.file('store')}",
        rank=rank,
        world_size=pipeline.num_ranks,
        timeout=timedelta(seconds=pipeline.timeout),
        device_id=device if gpu else None,
    )


def _agree(pipeline: Pipeline, rank: int, device: torch.device) -> None:
    """All ranks hold the same model, config and schedule, or none goes on."""
    own = bytes.fromhex(pipeline.stages.digest()) + bytes.fromhex(pipeline.identity)
    mine = torch.frombuffer(bytearray(own), dtype=torch.uint8).to(device)
    theirs = [torch.empty_like(mine) for _ in range(pipeline.num_ranks)]
    dist.all_gather(theirs, mine)
    for other, digest in enumerate(theirs):
        for what, part in (("parameters", slice(0, 32)), ("config or schedule", slice(32, None))):
            if not torch.equal(digest[part], theirs[0][part]):
                raise VerificationError(f"rank {other} starts with other {what} than rank 0")


def _stage(pipeline: Pipeline, index: int, device: torch.device, recorder: Recorder) -> Stage:
    module = pipeline.stages.modules[index].to(device)
    weight_gradient = None
    if pipeline.own_weight_gradient:
        module.toggle()  # type: ignore[operator]
        weight_gradient = module.compute_dW
    inputs, outputs = pipeline.stages.boundaries[index : index + 2]
    return Stage(module, index, pipeline.stages.num_stages, device, inputs, outputs, recorder, weight_gradient)  # type: ignore[arg-type]


def _batch(
    pipeline: Pipeline, step: int, owned: list[int], device: torch.device
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None]:
    """What this rank needs of the batch: the inputs for the first stage, the target for the last."""
    first, last = 0 in owned, pipeline.stages.num_stages - 1 in owned
    if not (first or last):
        return (), None
    batch = pipeline.batch(step)
    inputs = inputs_of(pipeline.stages.model, batch, pipeline.dtype) if first else ()
    target = to_dtype(batch.target, pipeline.dtype).to(device) if last else None
    return tuple(tensor.to(device) for tensor in inputs), target


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
