"""What a rank writes for others: its part of a checkpoint, and its values for the verdict."""

from __future__ import annotations

from typing import Any

import torch

from pipezoo.runtime.checkpoint import first_writer, write_part
from pipezoo.runtime.holding import Holding
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.update import Update
from pipezoo.runtime.whole import whole


def save_part(
    pipeline: Pipeline, holding: Holding, rank: int, update: Update, steps: int, writes: bool = True
) -> dict[str, Any]:
    """Write this rank's part of the checkpoint after so many steps, and return what the manifest says of it.

    Args:
        holding: what this process has of its parameters.
        writes: False for a process that shares them with the one that writes, and only gives its parts.
    """
    stages = pipeline.stages
    assert pipeline.checkpoints is not None
    writer = first_writer([names.values() for names in stages.names], pipeline.stage_to_rank.__getitem__)
    locked: dict[str, torch.Tensor] = dict([*stages.model.named_parameters(), *stages.model.named_buffers()])
    for stage in pipeline.stages_of(rank):
        locked |= {**holding.parameters(stage), **stages.buffers(stage)}
    own: Any = {name: whole(tensor) for name, tensor in locked.items() if writer.get(name, 0) == rank}
    state: Any = None if update.optimized is None else update.optimized.capture()
    own, state, recipe = holding.whole((own, state, update.capture()))
    return write_part(pipeline.checkpoints, steps, rank, own, state, recipe) if writes else {}


def leave_last(pipeline: Pipeline, holding: Holding, rank: int, update: Update, writes: bool = True) -> None:
    """For the verdict: what is there after the last step. Where every step was skipped, there are no gradients."""
    leave_values(pipeline, holding, rank, "last", writes)
    averages = holding.whole({} if update.average is None else update.average.capture())
    if not writes:
        return
    torch.save({str(rank): averages}, pipeline.file(f"average{rank}.pt"))
    if update.leave_gradients is not None:
        torch.save({str(stage): {} for stage in pipeline.stages_of(rank)}, pipeline.file(f"first{rank}.pt"))


def leave_values(pipeline: Pipeline, holding: Holding, rank: int, when: str, writes: bool = True) -> None:
    """For the verdict: the gradients of the first step, or parameters and buffers after the last one.

    Args:
        holding, writes: as of :func:`save_part`.
    """
    values: dict[str, dict[str, torch.Tensor | None]] = {}
    for stage in pipeline.stages_of(rank):
        held: dict[str, torch.Tensor] = {**holding.parameters(stage)}
        found: dict[str, torch.Tensor | None] = {name: p.grad for name, p in held.items() if p.requires_grad}
        if when != "first":
            held |= pipeline.stages.buffers(stage)
            found = {**held}
        values[str(stage)] = {name: None if v is None else whole(v, held[name]).cpu() for name, v in found.items()}
    values = holding.whole(values)
    if writes:
        torch.save(values, pipeline.file(f"{when}{rank}.pt"))
