"""From a model and its first batch to stages that were tried out, before a process starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from pipezoo.data.batch import Batch
from pipezoo.errors import ArgumentError, ConfigError, PipezooError
from pipezoo.experiment.derive import Asked, Sizes, resolve
from pipezoo.experiment.experiment import Experiment
from pipezoo.runtime.allocation_guard import AllocationGuard, TooLargeError
from pipezoo.runtime.autocast import Autocast
from pipezoo.runtime.draws import Drawing
from pipezoo.runtime.feed import checked
from pipezoo.runtime.judged import judged_by, prepare_loss, tensors_in
from pipezoo.runtime.microbatching import scaled
from pipezoo.runtime.model_output import check_output
from pipezoo.runtime.randomness import find_drawing, generators, generators_moved_since, leaving_no_trace
from pipezoo.runtime.rank_memory import forget_copies
from pipezoo.runtime.stages import Stages, Tensors, first_rows, inputs_of
from pipezoo.runtime.try_loss import check_counts
from pipezoo.runtime.try_out import Trial, try_out
from pipezoo.runtime.try_reference import try_reference
from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.splitters._addresses import write_addresses
from pipezoo.splitters._dry_run import output_of

OTHER_NUMBERS = (
    "its batch draws from the random numbers of the process, which one device does not share; "
    "valid: a generator of its own (pipezoo.data.batch.generator(seed, step)), or verify=false"
)


class Split(NamedTuple):
    """A model in stages, what was derived for it, and how it went when it was tried out."""

    stages: Stages
    sizes: Sizes
    trial: Trial
    drawing: Drawing | None


def split_model(
    experiment: Experiment,
    asked: Asked,
    model: nn.Module,
    data: Callable[[int], Batch],
    loss: nn.Module,
    dtype: torch.dtype,
    proved: bool = False,
) -> Split:
    batch = _first_batch(experiment, asked, data)
    try:
        inputs = inputs_of(model, batch, dtype)
        judged = _judged(experiment, model, batch, loss, dtype)
        for tensor in (*inputs, *tensors_in(judged)):
            if not tensor.dim() or tensor.shape[0] != asked.batch_size:
                raise ValueError(
                    f"a tensor of shape {tuple(tensor.shape)} has not the {asked.batch_size} rows of a batch as its "
                    "first dimension; valid: rows first, which the data turn and the model's forward turns back"
                )
    except ValueError as error:
        raise experiment.data.reword(error) from error
    example = first_rows(inputs, asked.rows)
    write_addresses(model)
    try:
        modules = experiment.split(model=model, num_stages=asked.num_stages, example=example)
    except ConfigError:
        _check_data(experiment, model, example)
        raise
    sizes = resolve(experiment, asked, len(modules))
    try:
        scale = scaled(loss, asked.num_slices)
    except ValueError as error:
        raise experiment.loss.reword(error) from error
    try:
        target = judged[: asked.rows]
        split_backward = _split_backwards(experiment, sizes.schedule)
        executor = experiment.executor()
        relay = executor.relays or sizes.schedule.has_messages
        autocast = Autocast.of(experiment.precision, "cpu")
        trial = try_out(modules, example, target, scale, split_backward, executor.inspect, relay, autocast, proved)
        stages = Stages.of(model, modules, trial.wiring)
        forget_copies(model)
        if experiment.verify and not proved:
            try_reference(model, example, target, scale)
            forget_copies(model)
    except ValueError as error:
        if "returns a" in str(error) and ("the loss fails" not in str(error) or not _is_own(loss)):
            check_output(output_of(model, example), experiment.output, type(model).__name__)
        raise experiment.model.reword(error) from error
    try:
        check_counts(loss, trial.wiring.stages[-1], judged, asked.num_slices)
    except ValueError as error:
        raise experiment.loss.reword(error) from error
    drawing, uncounted = find_drawing(model, modules, example, trial.moved)
    if uncounted is not None and experiment.verify:
        raise ConfigError(
            f"verify=true: model={experiment.model_name}, split={experiment.split_name}: {uncounted}, so one device "
            "draws other numbers; valid: functions of torch that draw without a generator=, or verify=false"
        )
    return Split(stages, sizes, trial, drawing)


def _is_own(loss: nn.Module) -> bool:
    """Whether somebody wrote it for this model. Those of torch take tensors."""
    return type(loss).__module__.partition(".")[0] not in ("torch", "pipezoo")


def _judged(experiment: Experiment, model: nn.Module, batch: Batch, loss: nn.Module, dtype: torch.dtype) -> Any:
    try:
        prepare_loss(loss, batch, experiment.loss_inputs)
        return judged_by(loss, model, batch, dtype)
    except ArgumentError as error:
        raise ConfigError(error.at(f"loss.{error.argument}"), error, error.why) from error


def _first_batch(experiment: Experiment, asked: Asked, data: Callable[[int], Batch]) -> Batch:
    try:
        with AllocationGuard(), leaving_no_trace():
            before = generators()
            batch = checked(data(0))
            if experiment.verify and generators_moved_since(before):
                raise ValueError(OTHER_NUMBERS)
            return batch
    except TooLargeError as error:
        derived = experiment.batch_size is None and experiment.num_microbatches is not None
        key = f"microbatches={asked.num_microbatches}" if derived else f"batch_size={asked.batch_size}"
        raise ConfigError(f"{key}: data={experiment.data_name}: {error}") from error
    except PipezooError:
        raise
    except Exception as error:
        raise experiment.data.reword(error) from error


def _split_backwards(experiment: Experiment, schedule: Schedule) -> set[int]:
    """The stages whose backward autograd computes in two halves."""
    if experiment.weight_grad == "module":
        return set()
    return {stage for stage in range(schedule.num_stages) if schedule.microbatches_in_order(stage, Op.I)}


def _check_data(experiment: Experiment, model: nn.Module, example: Tensors) -> None:
    """Where the whole model cannot take the data either, or returns no tensor, no cut of it is to blame."""
    try:
        result = output_of(model, example)
    except ValueError as error:
        raise experiment.data.reword(error) from error
    check_output(result, experiment.output, type(model).__name__)
