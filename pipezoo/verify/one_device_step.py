"""How one device moves a model: the recipe around the optimizer in torch's own parts, with nothing of the ranks' code.

torch.amp.GradScaler, torch.nn.utils.clip_grad_norm_, torch.optim.lr_scheduler, torch.optim.swa_utils
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipezoo.no_compiler import no_compiler
from pipezoo.runtime.optimizer_state import began, names_of
from pipezoo.runtime.optimizing import Optimized, asks_for_loss
from pipezoo.runtime.pipeline import Pipeline

Values = dict[str, "torch.Tensor | None"]


class OneDeviceStep:
    """The optimizer of an unsplit model, and all that its recipe has.

    ``averages``: the moving averages of what the optimizer moves, by name.
    """

    @no_compiler()
    def __init__(self, pipeline: Pipeline, model: nn.Module, device: torch.device) -> None:
        self._recipe, self._divisor = pipeline.recipe, pipeline.loss_divisor
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._masters = self._float32_copies() if pipeline.precision.masters else {}
        self._moved = {**self._parameters, **self._masters}
        optimizer = pipeline.optimizer(_parameter_groups(pipeline, model, self._moved))
        told = began(optimizer, names_of(self._moved.items()))
        schedule = pipeline.lr_schedule(optimizer)
        self._optimizer, self._schedule = optimizer, schedule
        self._scaler: torch.amp.GradScaler | None = None
        if (scaling := pipeline.precision.scaling) is not None:
            self._scaler = torch.amp.GradScaler(
                device.type,
                init_scale=scaling.start,
                growth_factor=scaling.growth,
                backoff_factor=scaling.backoff,
                growth_interval=scaling.interval,
            )
        self.averages: dict[str, torch.Tensor] = {}
        if (saved := pipeline.saved) is not None:
            Optimized(optimizer, self._moved, told, schedule, self._parameters).restore(saved)
            if self._scaler is not None and (scale := saved.recipe.get("loss_scale")):
                state = {"scale": scale["scale"], "_growth_tracker": scale["since"]}
                self._scaler.load_state_dict({**self._scaler.state_dict(), **state})
            averages = saved.recipe.get("average", {}) if self._recipe.ema is not None else {}
            self.averages = {name: averages[name].to(device) for name in self._moved if name in averages}

    def _float32_copies(self) -> dict[str, nn.Parameter]:
        coarse = {name: p for name, p in self._parameters.items() if p.dtype in (torch.bfloat16, torch.float16)}
        return {name: nn.Parameter(p.detach().clone().float()) for name, p in coarse.items()}

    def begin(self) -> None:
        """Before the first gradient."""
        for parameter in (*self._parameters.values(), *self._masters.values()):
            parameter.grad = None

    @property
    def loss_factor(self) -> float:
        """What the gradients of this step's losses are multiplied by."""
        return (1.0 if self._scaler is None else self._scaler.get_scale()) / self._divisor

    def end_of(self, loss: torch.Tensor) -> torch.Tensor:
        """What the backward of a loss begins at."""
        loss = loss / self._divisor if self._divisor > 1 else loss
        return loss if self._scaler is None else self._scaler.scale(loss)

    @no_compiler()
    def finish(self, numbers: dict[str, float], keeps: bool = True) -> Values:
        """Once all gradients are there; adds to ``numbers`` what a step came to.

        Returns:
            Copies of the gradients that moved something, where it ``keeps`` them.
        """
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        gradients = {name: p.grad for name, p in self._parameters.items()}
        kept = {name: None if g is None else g.clone() for name, g in gradients.items()} if keeps else {}
        finite = self._scaler is None or all(bool(g.isfinite().all()) for g in gradients.values() if g is not None)
        for name, master in self._masters.items():
            gradient = gradients[name]
            master.grad = None if gradient is None else gradient.float()
        if self._recipe.clip is not None and finite:
            norm = nn.utils.clip_grad_norm_(self._moved.values(), self._recipe.clip, foreach=False)
            numbers["grad_norm"] = norm.item()
        if self._scaler is not None:
            numbers["loss_scale"] = self._scaler.get_scale()
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            self._optimizer.step()
        with torch.no_grad():
            for name, master in self._masters.items():
                self._parameters[name].copy_(master)
        if self._schedule is not None:
            numbers["lr"] = float(self._schedule.get_last_lr()[0])
            if not asks_for_loss(self._schedule):
                self._schedule.step()
        self._average()
        return kept if finite else {}

    def hear(self, loss: float) -> None:
        """What an evaluation came to."""
        if self._schedule is not None and asks_for_loss(self._schedule):
            self._schedule.step(loss)  # type: ignore[arg-type]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the parameters that learn have their averages for values."""
        held = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        try:
            self._fill(self.averages)
            yield
        finally:
            self._fill(held)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, value in values.items():
            self._parameters[name].copy_(value)

    def _average(self) -> None:
        """As ``torch.optim.swa_utils.AveragedModel`` has it: the first is a copy."""
        if self._recipe.ema is None:
            return
        if not self.averages:
            self.averages = {name: parameter.detach().clone() for name, parameter in self._moved.items()}
            return
        update = get_ema_multi_avg_fn(self._recipe.ema)
        with torch.no_grad():
            update([*self.averages.values()], [self._moved[name].detach() for name in self.averages], 1)


def _parameter_groups(
    pipeline: Pipeline, model: nn.Module, moved: dict[str, nn.Parameter]
) -> list[nn.Parameter] | list[dict[str, Any]]:
    """What the optimizer is given: the parameters that learn, in groups where the recipe has some."""
    first = {id(p): name for name, p in model.named_parameters()}
    named = [(n, p) for n, p in model.named_parameters(remove_duplicate=False) if p.requires_grad]
    groups: list[dict[str, Any]] = []
    for group in pipeline.recipe.groups:
        fits = [p for n, p in named if not group.names or any(fnmatchcase(n, pattern) for pattern in group.names)]
        taken = dict.fromkeys(first[id(p)] for p in fits if group.max_dims is None or p.dim() <= group.max_dims)
        groups.append({"params": [moved[name] for name in taken], **group.options})
        named = [(n, p) for n, p in named if first[id(p)] not in taken]
    others = [moved[name] for name in dict.fromkeys(first[id(p)] for _, p in named)]
    return [{"params": others}, *groups] if groups else others
