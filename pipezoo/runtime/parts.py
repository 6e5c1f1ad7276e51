"""What a run is made of before anything is split: its data, its loss, its model, and the checkpoint it goes on from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from pipezoo.data.batch import Batch
from pipezoo.errors import ConfigError
from pipezoo.experiment.experiment import Experiment
from pipezoo.runtime.checkpoint import Checkpoint, origin_of
from pipezoo.runtime.evaluation import Evaluation
from pipezoo.runtime.feed import Source, source_of
from pipezoo.runtime.held_out import evaluation_of
from pipezoo.runtime.judged import judged_by, tensors_in
from pipezoo.runtime.model_output import with_output
from pipezoo.runtime.read_checkpoint import read
from pipezoo.runtime.restore import check_origin, restore_model
from pipezoo.runtime.stages import Tensors, inputs_of, make_model
from pipezoo.runtime.start_values import model_at_start
from pipezoo.runtime.try_recipe import updates_of
from pipezoo.runtime.weights import load_weights


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Args:
        model: unsplit, as it is before this run's first step.
        fresh_model: builds it once more.
        data: the batch of each step.
        loss: of the whole batch.
        evaluation: what is evaluated on held-out batches; None: nothing.
        saved: the checkpoint to go on from, if any.
        origin: what made its numbers, for the manifests of its checkpoints.
        dtype: of parameters and floating inputs.
    """

    model: nn.Module
    fresh_model: Callable[[], nn.Module]
    data: Source
    loss: nn.Module
    evaluation: Evaluation | None
    saved: Checkpoint | None
    origin: dict[str, Any]
    dtype: torch.dtype

    def on_one_device(self, batch: Batch) -> tuple[Tensors, Tensors]:
        """The tensors of a batch that the model takes, and those that the loss does."""
        return inputs_of(self.model, batch, self.dtype), tensors_in(judged_by(self.loss, self.model, batch, self.dtype))


def parts_of(experiment: Experiment, batch_size: int, start: Path | None = None) -> Parts:
    """Make them.

    Args:
        start: the values of the model before the first step, as another process left them; None: they are made.

    Raises:
        ConfigError: one of them cannot be had.
    """
    dtype = getattr(torch, experiment.dtype)
    data = source_of(experiment.data, batch_size, experiment.seed)
    loss = experiment.loss()
    evaluation = evaluation_of(experiment, batch_size, data)
    saved = None if experiment.resume is None else read(experiment.resume)
    origin = _origin(experiment, batch_size)
    if saved is not None:
        check_origin(saved, origin)
    fresh_model = partial(_fresh, experiment, dtype, saved)
    if start is None:
        model = fresh_model()
    else:
        made = model_at_start(partial(make_model, experiment.model, experiment.seed, dtype), start)
        model = with_output(made, experiment.output)
    return Parts(model, fresh_model, data, loss, evaluation, saved, origin, dtype)


def _fresh(experiment: Experiment, dtype: torch.dtype, saved: Checkpoint | None) -> nn.Module:
    """The unsplit model as it is before this run's first step."""
    model = make_model(experiment.model, experiment.seed, dtype)
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ConfigError(
                f"model={experiment.model_name}: {name} has no shape before the first forward (a lazy module); "
                "valid: modules that are told their sizes"
            )
    if experiment.weights is not None:
        load_weights(model, experiment.weights)
    return with_output(model if saved is None else restore_model(model, saved), experiment.output)


def _origin(experiment: Experiment, batch_size: int) -> dict[str, Any]:
    components = [experiment.model, experiment.data, experiment.loss]
    more: dict[str, Any] = {f"optimizer.{key}": _plain(value) for key, value in experiment.recipe.told().items()}
    more |= {"optimizer": experiment.optimizer_name, "precision": experiment.precision_name}
    if experiment.lr_schedule is not None:
        components.append(experiment.lr_schedule)
        more["lr_schedule.updates"] = updates_of(experiment)
    return origin_of(components, seed=experiment.seed, dtype=experiment.dtype, batch_size=batch_size) | more


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float)) else str(value)
