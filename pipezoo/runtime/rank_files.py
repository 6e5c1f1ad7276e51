"""What a rank writes for others: its part of a checkpoint, and its values for the verdict."""

from __future__ import annotations

from typing import Any

import torch

from pipezoo.runtime.checkpoint import first_writer, write_part
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.update import Update


def save_part(pipeline: Pipeline, rank: int, update: Update, steps: int) -> dict[str, Any]:
    """Write this rank's part of the checkpoint after so many steps."""
    stages = pipeline.stages
    assert pipeline.checkpoints is not None
    writer = first_writer([names.values() for names in stages.names], pipeline.stage_to_rank.__getitem__)
    locked: dict[str, torch.Tensor] = dict([*stages.model.named_parameters(), *stages.model.named_buffers()])
    for stage in pipeline.stages_of(rank):
        locked |= {**stages.parameters(stage), **stages.buffers(stage)}
    own = {name: tensor for name, tensor in locked.items() if writer.get(name, 0) == rank}
    state = None if update.optimized is None else update.optimized.capture()
    return write_part(pipeline.checkpoints, steps, rank, own, state, update.capture())


def leave_last(pipeline: Pipeline, rank: int, update: Update) -> None:
    """For the verdict: what is there after the last step. Where every step was skipped, there are no gradients."""
    owned = pipeline.stages_of(rank)
    leave_values(pipeline, rank, "last", owned)
    averages = {} if update.average is None else update.average.capture()
    torch.save({str(rank): averages}, pipeline.file(f"average{rank}.pt"))
    if update.leave_gradients is not None:
        torch.save({str(stage): {} for stage in owned}, pipeline.file(f"first{rank}.pt"))


def leave_values(pipeline: Pipeline, rank: int, when: str, owned: list[int]) -> None:
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
