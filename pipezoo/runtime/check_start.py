"""What the first steps of a run would refuse, refused before a process starts."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.experiment.experiment import Experiment
from pipezoo.runtime.autocast import Autocast
from pipezoo.runtime.checkpoint import CANNOT_RESUME, Checkpoint
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.stages import Stages, first_rows, inputs_of
from pipezoo.runtime.try_alone import check_alone
from pipezoo.runtime.try_checkpoint import check_model, check_saved, check_saving
from pipezoo.runtime.try_out import Trial, try_optimizer
from pipezoo.runtime.try_recipe import check_averages, check_recipe
from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Schedule


def check_start(experiment: Experiment, pipeline: Pipeline, trial: Trial) -> None:
    """What the first step would refuse, it refuses here: a step that is done, a fault nowhere, the optimizer."""
    if not pipeline.steps_to_do:
        done = pipeline.steps_to_do.start
        raise ConfigError(f"steps={pipeline.steps}: the checkpoint has {done} behind it already; valid: > {done}")
    if pipeline.saved is not None and not pipeline.begins_update(done := pipeline.saved.step):
        raise ConfigError(
            f"optimizer.accumulate={pipeline.recipe.accumulate}: the checkpoint has {done} steps behind it, "
            "which is no multiple of it"
        )
    batches = getattr(pipeline.batch, "num_steps", pipeline.steps)
    if batches < pipeline.steps:
        why = f"data={experiment.data_name} ends after {batches} batches"
        raise ConfigError(f"steps={pipeline.steps}: {why}; valid: steps<={batches}, or data.repeat=true")
    if pipeline.fault is not None:
        pipeline.fault.moment(*pipeline.where_faults_strike)
    model = pipeline.stages.model
    check_recipe(experiment, pipeline, model)
    try:
        held = _held(pipeline)
        try_optimizer(pipeline.optimizing, held, trial, may_draw=not pipeline.verify)
        check_alone(pipeline, model, trial)
    except Exception as error:
        raise experiment.optimizer.reword(error) from error
    if pipeline.saved is not None:
        for named in held:
            check_saved(pipeline.optimizing, named, trial, pipeline.saved)
        _check_ranks(pipeline, pipeline.saved)
        if pipeline.recipe.ema is not None:
            check_averages(pipeline.saved, model)


def check_checkpoints(experiment: Experiment, pipeline: Pipeline, trial: Trial) -> Pipeline:
    """A run that writes checkpoints can go on from them; or they say why not, where that was not asked for."""
    if pipeline.checkpoints is None:
        return pipeline
    model = pipeline.stages.model
    inputs = inputs_of(model, pipeline.batch(0), pipeline.dtype)
    try:
        for named in _held(pipeline):
            check_saving(pipeline.optimizing, named, trial)
        check_model(model, first_rows(inputs, len(inputs[0]) // pipeline.num_slices))
    except ConfigError as error:
        if experiment.checkpoint.to_go_on:
            raise
        return replace(pipeline, origin={**pipeline.origin, CANNOT_RESUME: str(error)})
    return pipeline


def _held(pipeline: Pipeline) -> list[dict[str, nn.Parameter]]:
    """What processes hold that learns, by name; once, where several hold the same."""
    found: dict[tuple[str, ...], dict[str, nn.Parameter]] = {}
    for rank in range(pipeline.pp):
        named = {name: p for stage in pipeline.stages_of(rank) for name, p in pipeline.stages.parameters(stage).items()}
        if any(parameter.requires_grad for parameter in named.values()):
            found[tuple(sorted(named))] = named
    return [*found.values()]


def _check_ranks(pipeline: Pipeline, saved: Checkpoint) -> None:
    """Each rank's optimizer finds in the checkpoint what it goes on from."""
    for named in _held(pipeline):
        pipeline.optimizing.of(named).restore(saved)


def check_devices(experiment: Experiment, num_ranks: int) -> None:
    if experiment.device != "cuda":
        return
    found = torch.cuda.device_count()
    if found < num_ranks:
        raise ConfigError(
            f"device=cuda: ranks={num_ranks} need {num_ranks} GPUs, and this machine has {found}; "
            f"valid: {'launch=virtual, ' if found else ''}device=cpu{f', ranks <= {found}' if found else ''}"
        )


def check_precision(experiment: Experiment) -> None:
    try:
        Autocast.of(experiment.precision, experiment.device).check(experiment.precision_name)
    except ArgumentError as error:
        raise ConfigError(str(error), error, error.why) from error


def check_weight_gradient(experiment: Experiment, stages: Stages, schedule: Schedule) -> None:
    if experiment.weight_grad == "deferred" and not experiment.executor().defers:
        raise ConfigError(
            f"weight_grad=deferred: executor={experiment.executor_name} splits backwards in its own way; "
            "valid: executor=native, or weight_grad=autograd"
        )
    if experiment.weight_grad != "module":
        return
    for index, module in enumerate(stages.modules):
        if not callable(getattr(module, "compute_dW", None)) or not callable(getattr(module, "toggle", None)):
            raise ConfigError(
                f"weight_grad=module: stage {index} of model={experiment.model_name}, split={experiment.split_name} "
                "has no toggle() and compute_dW() of its own; valid: weight_grad=autograd, "
                "or a model that has them (multi_mlp_with_dw) with split=modules"
            )
        inputs, weights = (schedule.microbatches_in_order(index, op, Op.B) for op in (Op.I, Op.W))
        if inputs != weights:
            raise ConfigError(
                f"weight_grad=module: compute_dW works through the microbatches in the order of input gradients, but "
                f"schedule={experiment.schedule_name} has {weights} after {inputs} on stage {index}; "
                "valid: weight_grad=autograd"
            )
