"""What of the recipe around an optimizer can be wrong, found before any process starts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.experiment.experiment import Experiment
from pipezoo.experiment.python_component import PythonComponent
from pipezoo.experiment.recipe import GROUP
from pipezoo.no_compiler import no_compiler
from pipezoo.runtime.checkpoint import Checkpoint
from pipezoo.runtime.optimizing import asks_for_loss
from pipezoo.runtime.parameter_groups import places_of
from pipezoo.runtime.pipeline import Pipeline


def lr_schedule(experiment: Experiment, optimizer: torch.optim.Optimizer) -> LRScheduler | None:
    """The schedule of an optimizer's learning rate. Raises ConfigError."""
    component = experiment.lr_schedule
    if component is None:
        return None
    updates = updates_of(experiment)
    made = component(optimizer=optimizer, **({} if updates is None else {"updates": updates}))
    if made is not None and not isinstance(made, LRScheduler):
        raise ConfigError(
            f"lr_schedule={component.choice}: made a {type(made).__name__}; "
            "valid: a torch.optim.lr_scheduler.LRScheduler, or None"
        )
    return made


def updates_of(experiment: Experiment) -> int | None:
    """The length of a schedule that takes one: what was typed, or that of the run."""
    component = experiment.lr_schedule
    if component is None or not component.takes("updates"):
        return None
    typed = component.arguments.get("updates")
    return experiment.num_updates if typed is None else typed


@no_compiler()
def check_recipe(experiment: Experiment, pipeline: Pipeline, model: nn.Module) -> None:
    """Refuse groups that fit nothing, options that are none, and a schedule that cannot be stepped.

    Raises:
        ConfigError: in the user's spelling.
    """
    try:
        places_of(pipeline.recipe.groups, model)
    except ArgumentError as error:
        raise ConfigError(error.at(f"{GROUP}.{error.argument}"), error, error.why) from None
    _check_takes_all(experiment, pipeline, model)
    for place in range(len(pipeline.recipe.groups)):
        _check_options(experiment, pipeline, place)
    _check_schedule(experiment, pipeline)


def check_averages(saved: Checkpoint, model: nn.Module) -> None:
    """Averages in a checkpoint are of all that learns, in its shapes. Raises ConfigError."""
    averages = saved.recipe.get("average")
    if averages is None:
        return
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and (name not in averages or averages[name].shape != parameter.shape):
            what = tuple(averages[name].shape) if name in averages else "missing"
            raise ConfigError(f"resume={saved.path}: the average of {name} is {what}; valid: {tuple(parameter.shape)}")


def _check_takes_all(experiment: Experiment, pipeline: Pipeline, model: nn.Module) -> None:
    """One optimizer moves all that learns. What takes matrices alone, as Muon does, is told of what is none."""
    learning = {name: nn.Parameter(p.detach()) for name, p in model.named_parameters() if p.requires_grad}
    others = [name for name, parameter in learning.items() if parameter.dim() != 2]
    if not others or len(others) == len(learning) or _takes(pipeline, learning.values()):
        return
    if _takes(pipeline, [learning[name] for name in learning if name not in others]):
        raise ConfigError(
            f"optimizer={experiment.optimizer.choice}: takes matrices alone, and {others[0]} is "
            f"{tuple(learning[others[0]].shape)}; valid: an optimizer of your own that moves the others by another "
            "rule, as in docs/training-recipe.md"
        )


def _takes(pipeline: Pipeline, parameters: Iterable[nn.Parameter]) -> bool:
    try:
        pipeline.optimizer([*parameters])
    except Exception:
        return False
    return True


def _check_options(experiment: Experiment, pipeline: Pipeline, place: int) -> None:
    """Options of a group are arguments of the optimizer, in the ranges that its constructor allows."""
    options, component = pipeline.recipe.groups[place].options, experiment.optimizer
    key = f"{GROUP}.groups[{place}]"
    try:
        if isinstance(component, PythonComponent):
            defaults = component(params=_dummies()).defaults
        else:
            defaults = replace(component, arguments={**component.arguments, **options})(params=_dummies()).defaults
    except ConfigError as error:
        named = next((name for name in options if str(error).startswith(f"{GROUP}.{name}=")), None)
        if named is None:
            raise
        raise ConfigError(f"{key}.{str(error).removeprefix(f'{GROUP}.')}", error.argument, error.why) from error
    for name in options:
        if name not in defaults:
            raise ConfigError(f"{key}.{name}: is no option of {component.choice}; valid: {', '.join(defaults)}")


def _check_schedule(experiment: Experiment, pipeline: Pipeline) -> None:
    """A schedule takes the first step of a run and the last, and its rates are numbers."""
    component = experiment.lr_schedule
    if component is None:
        return
    own = [dict(group.options) for group in pipeline.recipe.groups]
    optimizer = pipeline.optimizer([{"params": _dummies(), **options} for options in [{}, *own]])
    if (schedule := pipeline.lr_schedule(optimizer)) is None:
        return
    if asks_for_loss(schedule) and experiment.eval.every is None:
        raise ConfigError(
            f"lr_schedule={component.choice}: {type(schedule).__name__} moves by losses of evaluations, and there are "
            "none; valid: eval.every=100 as well"
        )
    try:
        optimizer.step()
    except Exception:  # of the optimizer, which is tried next
        return
    try:
        step = partial(schedule.step, 1.0) if asks_for_loss(schedule) else schedule.step  # type: ignore[arg-type]
        step()
        rates = schedule.get_last_lr()
        schedule.last_epoch = max(schedule.last_epoch, experiment.num_updates - 1)
        step()
        rates += schedule.get_last_lr()
    except Exception as error:
        raise component.reword(error) from error
    if not all(math.isfinite(float(rate)) for rate in rates):
        raise ConfigError(f"lr_schedule={component.choice}: comes to a learning rate that is no finite number")


def _dummies() -> list[nn.Parameter]:
    """Something for an optimizer to hold, a matrix, so that every optimizer takes it."""
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.zeros(2, 2)
    return [parameter]
