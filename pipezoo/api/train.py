"""``pz.train``: a model of the caller's own, trained as a pipeline, held against one device, and given back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipezoo.api import parts
from pipezoo.api.batches import source_of
from pipezoo.api.folders import in_folder
from pipezoo.api.launches import Chosen, choose
from pipezoo.api.refusals import refusals
from pipezoo.api.undisturbed import undisturbed
from pipezoo.errors import MISSING, ArgumentError, ConfigError
from pipezoo.experiment.experiment import CheckpointOptions, Experiment
from pipezoo.experiment.python_component import PythonComponent
from pipezoo.experiment.recipe import Recipe
from pipezoo.launch.launch import Launch
from pipezoo.results.run import Run, read_run
from pipezoo.runtime.read_checkpoint import read
from pipezoo.runtime.restore import restore_model
from pipezoo.runtime.stages import make_model
from pipezoo.schedule.schedule import Schedule
from pipezoo.tasks import train as task
from pipezoo.tasks.terminal import silent

DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}


@dataclass(frozen=True, repr=False)
class TrainedRun(Run):
    """A run whose model is here.

    Args:
        model: the trained model: a copy of the one that was given, with the parameters and buffers after the last step.
        launch: how the ranks ran, and why so.
        average: the same model with the moving averages of its parameters, where the recipe keeps them.
    """

    model: nn.Module = field(default_factory=nn.Module)
    average: nn.Module | None = None
    launch: str = ""

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}; {self.launch})"


def train(
    model: nn.Module | Callable[[], nn.Module],
    batch: Any,
    *,
    schedule: Schedule | str,
    loss: nn.Module | Callable[..., torch.Tensor] | str,
    optimizer: Callable[[Any], torch.optim.Optimizer] | str,
    lr_schedule: Callable[[torch.optim.Optimizer], Any] | str | None = None,
    recipe: Recipe | None = None,
    precision: str = "none",
    split: str | Sequence[Sequence[str]] | Callable[..., Sequence[nn.Module]] = "modules",
    steps: int | None = None,
    stages: int | None = None,
    ranks: int | None = None,
    microbatches: int | None = None,
    launch: str | Launch = "auto",
    threads: int | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    seed: int = 0,
    verify: bool = True,
    tolerance: float | None = None,
    record_steps: int = 1,
    on_nonfinite: str = "stop",
    resume: str | Path | Run | None = None,
    executor: str = "native",
    folder: str | Path | None = None,
    log: Callable[[str], None] | None = None,
) -> TrainedRun:
    """Train a model as a pipeline for real, and hold every number against one device.

    The given model stays as it is; ``run.model`` is its trained copy.

    Args:
        model: any ``nn.Module`` on any device, or a function that makes one (called with the seed set).
        batch: a pair ``(input, target)``, used in every step; an iterable of pairs, one a step (a DataLoader); a
            :class:`pipezoo.Batch`; or a function ``step -> pair``. An input is a tensor ``[rows, ...]``, a tuple of
            them, or a dict of keyword inputs; a target is a tensor ``[rows, ...]``. The schedule's microbatches are
            equal slices of the rows.
        schedule: an order, or the name of one (``"1f1b"``), made for ``ranks`` or ``stages``, and ``microbatches``.
        loss: an ``nn.Module`` with ``reduction`` ``mean`` or ``sum``, a function with such an argument
            (``torch.nn.functional.mse_loss``), or a word of ``conf/loss``.
        optimizer: a function of the parameters (``functools.partial(torch.optim.SGD, lr=0.1)``), or a word of
            ``conf/optimizer``. Each rank has its own, of the parameters of its stages.
        lr_schedule: a function of an optimizer (``functools.partial(torch.optim.lr_scheduler.StepLR, step_size=10)``),
            or a word of ``conf/lr_schedule``; it steps after each update.
        recipe: what is done around the optimizer's step: ``pz.Recipe(clip=1.0, ema=0.999)``.
        precision: a word of ``conf/precision``.
        split: how the model is cut: a word of ``conf/split``, the names of the modules of each stage, or a function
            ``(model, num_stages, example) -> stage modules`` that shares the model's parameters.
        steps: optimizer steps; None: as many as an iterable has batches, else 10.
        launch: ``processes``, one a rank; ``virtual``, all ranks in one process; ``auto``: processes, but virtual ranks
            in this process where threads run and the model cannot be sent to another process, as in a notebook. Or a
            launch of ``pipezoo.launch``. ``run.launch`` says what it was, and why.
        threads: of each process; None: the cores dealt evenly.
        device: ``cpu``, or ``cuda`` with a GPU for each rank (one for all virtual ranks).
        dtype: of parameters and floating inputs; None: that of the model's parameters.
        seed: of a model that is made here, and of what is random in forward.
        verify: whether losses, gradients, parameters and buffers are compared with a training on one device.
        tolerance: largest relative difference that counts as close; None: by dtype.
        record_steps: how many of the last steps go into ``run.timelines``.
        on_nonfinite: at a NaN or infinite loss: ``stop``, ``warn`` or ``ignore``.
        resume: a run, its folder or a checkpoint to go on from; ``steps`` counts from its beginning.
        executor: ``native``, or ``torch`` for torch's own runtime.
        folder: where the run's files go; None: a new one below ``outputs``. The last step's checkpoint is among them.
        log: is called with each line that the command line would print; None: nobody hears them.

    Returns:
        The run: ``verified`` (``exact``, ``close`` or None), ``losses``, ``timelines``, ``folder``, and ``model``.

    Raises:
        ConfigError: an argument will not do; nothing was started.
        VerificationError: the pipeline computed something else than one device.
        RankError, NonFiniteError, NoProgressError: the training failed; ``error.folder`` holds what was reached.

    Example:
        >>> import pipezoo as pz, torch
        >>> from functools import partial
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(4)))
        >>> x = torch.randn(16, 8)
        >>> run = pz.train(model, (x, x.flip(1)), schedule=pz.schedules["1f1b"](2, 4), loss=torch.nn.MSELoss(),
        ...                optimizer=partial(torch.optim.SGD, lr=0.1), steps=3)
        >>> run.verified, len(run.losses), type(run.model).__name__
        ('exact', 3, 'Sequential')
    """
    with refusals():
        source = source_of(batch, steps)
        components: dict[str, Any] = {
            "model": parts.model_part(model),
            "data": PythonComponent("batch", parts.name_of(batch), made=source),
            "split": parts.split_part(split),
            "schedule": parts.schedule_part(schedule),
            "loss": parts.loss_part(loss),
            "optimizer": parts.optimizer_part(optimizer),
            "executor": parts.worded("executor", executor),
            "cost": parts.worded("cost", "unit"),
        }
        if not isinstance(recipe, (Recipe, type(None))):
            raise ArgumentError("recipe", MISSING, f"is of type {type(recipe).__name__}", "pz.Recipe(clip=1.0)")
        moved, computed = parts.lr_schedule_part(lr_schedule), parts.worded("precision", precision)()
        chosen = choose(launch, tuple(components.values()), threads)
    experiment = Experiment(
        task="train",
        **components,
        launch=chosen.launch,
        launch_name=chosen.name,
        num_stages=stages,
        num_ranks=ranks,
        num_microbatches=microbatches,
        batch_size=source.rows,
        steps=source.steps,
        lr_schedule=moved,
        recipe=recipe or Recipe(),
        precision=computed,
        precision_name=precision,
        seed=seed,
        dtype=_dtype(components["model"], dtype, seed),
        device=device,
        verify=verify,
        tolerance=tolerance,
        record_steps=record_steps,
        on_nonfinite=on_nonfinite,
        checkpoint=CheckpointOptions(every=source.steps, keep=1, to_go_on=False),
        resume=str(resume.folder if isinstance(resume, Run) else resume) if resume is not None else None,
    )
    with undisturbed(), in_folder(folder) as made:
        task.run(experiment, made, log or silent)
        return _trained(experiment, made, chosen)


def _trained(experiment: Experiment, folder: Path, chosen: Chosen) -> TrainedRun:
    model = make_model(experiment.model, experiment.seed, getattr(torch, experiment.dtype))
    saved = read(str(folder))
    restore_model(model, saved)
    run = read_run(folder)
    values = {part.name: getattr(run, part.name) for part in fields(run)}
    average = _averaged(model, saved.recipe["average"]) if "average" in saved.recipe else None
    return TrainedRun(
        **values, model=model, average=average, launch=f"{chosen.name}{f' ({chosen.why})' if chosen.why else ''}"
    )


def _averaged(model: nn.Module, averages: Mapping[str, torch.Tensor]) -> nn.Module:
    found = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            parameter.copy_(averages.get(name, parameter))
    return found


def _dtype(model: Any, asked: torch.dtype | None, seed: int) -> str:
    """The name of the run's dtype: what was asked for, or that of the model's parameters."""
    if asked is not None:
        return DTYPES.get(asked, str(asked).removeprefix("torch."))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = model()
    found = {parameter.dtype for parameter in made.parameters() if parameter.is_floating_point()} or {torch.float32}
    if len(found) > 1:
        several = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
        raise ConfigError(
            f"dtype=None: the model has parameters of {several}; valid: one dtype for all, dtype=torch.float32"
        )
    (dtype,) = found
    return DTYPES.get(dtype, str(dtype).removeprefix("torch."))
