"""The gradient of a tied parameter, added up on one device as the pipeline adds it up.

    unsplit model     autograd adds both uses of the parameter microbatch by microbatch:     (a0 + b0) + (a1 + b1)
    pipeline          each process adds the shares of its stages as its actions come,
                      then the processes' sums are added in the order of their numbers:      (a0 + a1) + (b0 + b1)

Both are the same sum to within rounding, and no more. That alone would be harmless, but an optimizer that divides by
the size of the gradient (Adam) turns the last bit of a gradient near zero into a step of full size, and from there on
the two runs drift apart, right as both are. So the reference takes the pipeline's order for its own next step, after
the sum was found close to the unsplit model's. To tell the shares apart, each stage is run with parameters of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import nn

from pipezoo.runtime.draws import StageDraws
from pipezoo.runtime.microbatching import LossFunction, Tensors, total
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.schedule.action import Op
from pipezoo.skips import run_stages
from pipezoo.splitters._copies import copies


class TiedGradients:
    """The stages of a pipeline, one after the other on one device, with nothing tied between them."""

    def __init__(self, pipeline: Pipeline, device: torch.device) -> None:
        self._pipeline = pipeline
        self._holders = _stages_of_tied(pipeline)
        self._untied = [copies([module])[0].to(device) for module in pipeline.stages.modules if self._holders]
        self._draws: StageDraws | None = None
        if pipeline.drawing is not None:
            self._draws = pipeline.drawing.in_stages(pipeline.seed, self._untied, pipeline.loss)

        self._sums: list[list[dict[str, torch.Tensor]]] = []  # [num_shares][num_processes], by name
        self.begin()

    def begin(self) -> None:
        """Before the first step whose gradients add up."""
        self._sums = [[{} for _ in range(self._pipeline.pp)] for _ in range(self._pipeline.mesh.dp)]

    def add(
        self,
        share: int,
        model: nn.Module,
        cut: Sequence[Tensors],
        loss: LossFunction,
        step: int,
        end_of: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        """Add up the gradient of every tied parameter for the values in ``model`` and these microbatches of a step.

        Args:
            share: of the batch, whose microbatches they are.
            end_of: what the backward of a loss begins at.
        """
        if not self._holders:
            return
        self._load(model)
        if self._draws is not None:
            self._draws.begin_step(step)
            self._draws.begin_share(share * len(cut))
        ends = [end_of(self._loss(microbatch, loss, *tensors)) for microbatch, tensors in enumerate(cut)]
        for process, sums in enumerate(self._sums[share]):
            self._add(process, ends, sums)

    def gradients(self) -> dict[str, torch.Tensor]:
        """The sum of all that was added, for every tied parameter that was used, by its name: first over the shares,
        in their order, then over the processes."""
        sums = [self._over_shares(process) for process in range(self._pipeline.pp)]
        used = [name for name in self._holders if any(name in of_process for of_process in sums)]
        return {name: total(self._by_process(name, sums)) for name in used}

    def _over_shares(self, process: int) -> dict[str, torch.Tensor]:
        """What a process of each replica has, added up."""
        found = [of_share[process] for of_share in self._sums]
        like = {name: value for of_share in found for name, value in of_share.items()}
        return {
            name: total([of_share[name] if name in of_share else torch.zeros_like(value) for of_share in found])
            for name, value in like.items()
        }

    def _by_process(self, name: str, of_processes: Sequence[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
        """What each holder has of a gradient; zeros where its stages did not use the parameter."""
        placed = self._pipeline.stage_to_rank
        nothing = torch.zeros_like(next(sums[name] for sums in of_processes if name in sums))
        return [of_processes[at].get(name, nothing) for at in sorted({placed[stage] for stage in self._holders[name]})]

    def _load(self, model: nn.Module) -> None:
        values = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        with torch.no_grad():
            for module, names in zip(self._untied, self._pipeline.stages.names, strict=True):
                for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                    if name in names:
                        tensor.copy_(values[names[name]])

    def _loss(self, microbatch: int, loss: LossFunction, *tensors: torch.Tensor) -> torch.Tensor:
        *inputs, target = tensors
        with self._pipeline.autocast():
            if self._draws is None:
                output = run_stages(self._untied, inputs)
            else:
                output = run_stages(self._draws.callables(self._untied, microbatch), inputs)
            with self._draws.at(-1, microbatch) if self._draws is not None else nullcontext():
                return loss(output, target)

    def _add(self, process: int, losses: Sequence[torch.Tensor], sums: dict[str, torch.Tensor]) -> None:
        """To ``sums`` what one process adds up, action after action, of what its stages use."""
        for action in self._pipeline.actions[process]:
            if action.op not in (Op.B, Op.W) or action.microbatch is None:
                continue
            own = {n: p for n, p in self._parameters(action.stage).items() if action.stage in self._holders.get(n, ())}
            if not own:
                continue
            with self._draws.draws.again(action.microbatch) if self._draws is not None else nullcontext():
                shares = torch.autograd.grad(
                    losses[action.microbatch], list(own.values()), retain_graph=True, allow_unused=True
                )
            for name, share in zip(own, shares, strict=True):
                if share is not None:
                    sums[name] = share if name not in sums else sums[name] + share

    def _parameters(self, stage: int) -> dict[str, nn.Parameter]:
        names = self._pipeline.stages.names[stage]
        return {names[name]: parameter for name, parameter in self._untied[stage].named_parameters()}


def _stages_of_tied(pipeline: Pipeline) -> dict[str, list[int]]:
    """The parameters that learn and that more than one stage holds, with those stages."""
    holders: dict[str, list[int]] = {}
    for stage in range(pipeline.stages.num_stages):
        for name, parameter in pipeline.stages.parameters(stage).items():
            if parameter.requires_grad:
                holders.setdefault(name, []).append(stage)
    return {name: stages for name, stages in holders.items() if len(stages) > 1}
