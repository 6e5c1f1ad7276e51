"""Cut where the model's own forward calls `torch.distributed.pipelining.pipe_split()`."""

from __future__ import annotations

from torch import Tensor, nn

from pipezoo.errors import ArgumentError
from pipezoo.splitters._trace_losses import with_losses
from pipezoo.splitters._tracing import stages, trace


def split(model: nn.Module, num_stages: int | None, example: tuple[Tensor, ...]) -> list[nn.Module]:
    """Stage modules of `model`, traced on `example` and cut at its `pipe_split()` calls.

    Args:
        model: any module that torch.export can trace; it is not changed, and its Parameters are those of the stages.
        num_stages: how many stages; fewer than the marks make joins neighbours evenly. None: as many as the marks make.
        example: one microbatch of positional inputs.

    Raises ValueError when the model has too few marks, fails on the example or cannot be traced. Randomness in
    the forward is traced as the model's mode (train or eval) has it.
    """
    traced = trace(model, example)
    if len(traced.pieces) < 2 and num_stages != 1:
        name = type(model).__name__
        raise ArgumentError("model", name, "its forward calls no pipe_split(); split=modules or split=annotated fits")
    made = stages(traced, num_stages, f"the pipe_split() calls of {type(model).__name__} make")
    return with_losses(model, made, example)
