"""Whether an optimizer moves each number by itself, tried on copies: of sharded replicas each holds a part of each
parameter, its first rows or its last.

one optimizer of whole parameters       step, step     ─┐
one optimizer of each replica's rows    step, step     ─┴─ the same bits, or it looks at a parameter as a whole
"""

from __future__ import annotations

import torch
from torch import nn

from pipezoo.errors import ConfigError, first_line
from pipezoo.runtime.optimizer_state import same
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.randomness import leaving_no_trace
from pipezoo.runtime.try_checkpoint import STEPS, gradients_of, learning_copies, step_with
from pipezoo.runtime.try_out import Trial


def check_shards(pipeline: Pipeline, trial: Trial) -> None:
    """Refuse an optimizer that would step otherwise on shards: by norms of parameters, by their rows and columns.

    Raises:
        ConfigError: one line.
    """
    held, dp = dict(pipeline.stages.model.named_parameters()), pipeline.mesh.dp
    gradients = {name: g for name, g in gradients_of(held, trial).items() if g is not None}
    held = {name: parameter for name, parameter in held.items() if name in gradients}
    with leaving_no_trace():
        whole = learning_copies(held)
        optimized = pipeline.optimizing.of(whole)
        for _ in range(STEPS):
            step_with(optimized, whole, dict(gradients))
        for replica in range(dp):
            own = {name: nn.Parameter(_rows(p.detach(), dp, replica).clone()) for name, p in held.items()}
            try:
                alone = pipeline.optimizing.of(own)
                for _ in range(STEPS):
                    step_with(alone, own, {name: _rows(g, dp, replica) for name, g in gradients.items()})
            except Exception as error:
                raise _refused(
                    optimized.optimizer, f"fails on a part of the parameters: {first_line(error)}"
                ) from error
            for name, rows in own.items():
                if not same(rows.detach(), _rows(whole[name].detach(), dp, replica)):
                    raise _refused(optimized.optimizer, f"moves {name} elsewhere where it holds a part of its rows")


def _rows(tensor: torch.Tensor, dp: int, replica: int) -> torch.Tensor:
    """Those of one replica, as torch deals them."""
    pieces = torch.chunk(tensor, dp)
    return pieces[replica] if replica < len(pieces) else tensor[:0]


def _refused(optimizer: torch.optim.Optimizer, why: str) -> ConfigError:
    return ConfigError(
        f"mesh.dp_with=fsdp: {type(optimizer).__name__} {why}; valid: mesh.dp_with=ordered, mesh.dp_with=replicate, or "
        "an optimizer that moves each number by itself"
    )
