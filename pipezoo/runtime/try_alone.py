"""Whether an optimizer moves each parameter by itself, tried on copies: ranks have one each, of their own parameters.

one optimizer of all      step, step     ─┐
one optimizer a rank      step, step     ─┴─ the same bits, or it mixes parameters: norms over all, shared directions
"""

from __future__ import annotations

import torch
from torch import nn

from pipezoo.runtime.optimizer_state import same
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.randomness import generators, generators_moved_since, leaving_no_trace
from pipezoo.runtime.try_checkpoint import STEPS, gradients_of, learning_copies, step_with
from pipezoo.runtime.try_out import Trial


def check_alone(pipeline: Pipeline, model: nn.Module, trial: Trial) -> None:
    """Refuse an optimizer that would step otherwise on ranks. Those of torch all move each parameter by itself.

    Raises:
        ValueError: a parameter moves elsewhere where another rank has the others.
    """
    whole = dict(model.named_parameters())
    learning = {name for name, parameter in whole.items() if parameter.requires_grad}
    held = [
        {name for stage in pipeline.stages_of(rank) for name in pipeline.stages.parameters(stage) if name in learning}
        for rank in range(pipeline.pp)
    ]
    if sum(map(bool, held)) < 2:
        return
    with leaving_no_trace():
        first = pipeline.optimizing.of({name: nn.Parameter(torch.zeros(2, 2)) for name in learning})
        if type(first.optimizer).__module__.startswith("torch.optim."):
            return
        gradients, together = gradients_of(whole, trial), learning_copies(whole)
        optimized = pipeline.optimizing.of(together)
        before = generators()
        for _ in range(STEPS):
            step_with(optimized, together, gradients)
        if generators_moved_since(before):  # another refusal is about that
            return
        for own in filter(None, held):
            named = learning_copies({name: p for name, p in whole.items() if name in own})
            alone = pipeline.optimizing.of(named)
            for _ in range(STEPS):
                step_with(alone, named, gradients)
            for name, parameter in named.items():
                if not same(parameter.detach(), together[name].detach()):
                    raise ValueError(
                        f"{type(alone.optimizer).__name__} moves {name} elsewhere where it holds the parameters of one "
                        "rank alone; valid: an optimizer that moves each parameter by itself, or launch=virtual"
                    )
