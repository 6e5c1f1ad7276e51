"""Everything that is decided before a process starts: the model is built, split, tried out, and its order lowered.

What is wrong with a run is found here, in the parent, and said in one line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from pipezoo.data.batch import Batch
from pipezoo.errors import ArgumentError, ConfigError, PipezooError
from pipezoo.experiment.derive import Asked, Sizes, derive, resolve
from pipezoo.experiment.experiment import Experiment
from pipezoo.runtime.allocation_guard import AllocationGuard, TooLargeError, check_model_fits
from pipezoo.runtime.autocast import Autocast
from pipezoo.runtime.batch_shapes import Shapes, look
from pipezoo.runtime.checkpoint import CANNOT_RESUME, Checkpoint, origin_of, read
from pipezoo.runtime.draws import Drawing
from pipezoo.runtime.feed import Source, checked, source_of
from pipezoo.runtime.held_out import check_evaluation, evaluation_of
from pipezoo.runtime.microbatching import scaled
from pipezoo.runtime.model_output import check_output, with_output
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.profiler import Profile
from pipezoo.runtime.randomness import find_drawing, generators, generators_moved_since, leaving_no_trace
from pipezoo.runtime.restore import check_origin, restore_model
from pipezoo.runtime.stages import Stages, Tensors, empty, first_rows, inputs_of, make_model, to_dtype
from pipezoo.runtime.try_alone import check_alone
from pipezoo.runtime.try_checkpoint import check_model, check_saved, check_saving
from pipezoo.runtime.try_forward import try_forward
from pipezoo.runtime.try_loss import check_counts
from pipezoo.runtime.try_out import Trial, try_optimizer, try_out
from pipezoo.runtime.try_recipe import check_averages, check_recipe, lr_schedule, updates_of
from pipezoo.runtime.try_reference import try_reference
from pipezoo.runtime.weights import load_weights
from pipezoo.runtime.wiring import Wiring
from pipezoo.schedule.action import Action, Op
from pipezoo.schedule.depth_first import depth_first
from pipezoo.schedule.lowering import lower, receives_first
from pipezoo.schedule.nccl_order import check_queues
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import simulate
from pipezoo.splitters._addresses import write_addresses
from pipezoo.splitters._copies import copies
from pipezoo.splitters._dry_run import output_of

OTHER_NUMBERS = (
    "its batch draws from the random numbers of the process, which one device does not share; "
    "valid: a generator of its own (pipezoo.data.batch.generator(seed, step)), or verify=false"
)
LONGEST = 1e6  # seconds that torch's own deadlines can be; ours have no end


def build_pipeline(experiment: Experiment, scratch: Path, checkpoints: Path | None = None) -> tuple[Pipeline, Sizes]:
    """The pipeline of an experiment, ready to launch, and the numbers that were derived for it.

    Args:
        scratch: a private folder that the processes of the run share.
        checkpoints: where its checkpoints go, if it is to write some.

    Raises:
        ConfigError: the experiment cannot run, in the user's spelling.
    """
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # nor would CUDA, which tracing asks for otherwise
    _check_precision(experiment)
    asked = derive(experiment)
    dtype = getattr(torch, experiment.dtype)
    check_model_fits(experiment, dtype)
    with AllocationGuard():
        data = source_of(experiment.data, asked.batch_size, experiment.seed)
        loss = experiment.loss()
        evaluation = evaluation_of(experiment, asked.batch_size, data)
        saved = None if experiment.resume is None else read(experiment.resume)
        origin = _origin(experiment, asked.batch_size)
        if saved is not None:
            check_origin(saved, origin)
        model = _fresh(experiment, dtype, saved)
    stages, sizes, trial, drawing = _split(experiment, asked, model, data, loss, dtype)
    schedule = sizes.schedule
    placed = experiment.launch.placement(schedule)
    num_processes = max(placed) + 1
    _check_devices(experiment, num_processes)
    if experiment.device == "cuda" and num_processes > 1 and schedule.has_messages:
        check_queues(schedule)
    _check_weight_gradient(experiment, stages, schedule)
    pipeline = Pipeline(
        stages=stages,
        schedule=schedule,
        actions=_actions(experiment, schedule, placed, stages),
        stage_to_rank=placed,
        fresh_model=partial(_fresh, experiment, dtype, saved),
        batch=data,
        shapes=_shapes(experiment, stages, schedule, data, dtype, num_processes, saved),
        loss=loss,
        optimizer=lambda parameters: experiment.optimizer(params=parameters),
        lr_schedule=partial(lr_schedule, experiment),
        executor=experiment.executor(),
        drawing=drawing,
        scratch=scratch,
        steps=experiment.steps,
        seed=experiment.seed,
        dtype=dtype,
        device=experiment.device,
        threads=experiment.launch.threads_of(num_processes, num_cores()),
        record_steps=experiment.launch.recorded_steps(experiment.record_steps, experiment.steps),
        own_weight_gradient=experiment.weight_grad == "module",
        defers=experiment.weight_grad == "deferred",
        verify=experiment.verify,
        on_nonfinite=experiment.on_nonfinite,
        timeout=min(LONGEST, max(experiment.launch.first_step_timeout, experiment.launch.step_timeout) + 60.0),
        identity=_identity(experiment, schedule),
        emulated=_emulated(experiment, sizes),
        fault=experiment.fault,
        precision=experiment.precision,
        recipe=experiment.recipe,
        saved=saved,
        origin=origin,
        checkpoints=checkpoints if experiment.checkpoint.every or experiment.eval.best else None,
        checkpoint_every=experiment.checkpoint.every or experiment.steps,
        evaluation=evaluation,
        leaves_weights=any(getattr(part.function, "wants_weights", False) for part in experiment.exports),
    )
    pipeline = _profiled(experiment, pipeline)
    try:
        pipeline.executor.check(pipeline)
    except ValueError as error:
        raise experiment.executor.reword(error) from error
    _check_start(experiment, pipeline, trial)
    if evaluation is not None:

        def on_one_device(batch: Batch) -> tuple[Tensors, torch.Tensor]:
            return inputs_of(model, batch, dtype), to_dtype(batch.target, dtype)

        counts = num_processes, schedule.num_microbatches
        check_evaluation(evaluation, on_one_device, pipeline.shapes, model, stages.modules, *counts)
    pipeline = _check_checkpoints(experiment, pipeline, trial)
    return pipeline, sizes


def _shapes(
    experiment: Experiment,
    stages: Stages,
    schedule: Schedule,
    data: Source,
    dtype: torch.dtype,
    num_processes: int,
    saved: Checkpoint | None,
) -> Shapes:
    """The shapes of this run's batches. One process whose stages hand on tensors alone needs no more than the first."""
    steps = range(saved.step if saved else 0, experiment.steps)
    executor = experiment.executor()
    relay = executor.relays or schedule.has_messages

    def batch(step: int) -> tuple[torch.Tensor, ...]:
        made = data(step)
        return *inputs_of(stages.model, made, dtype), to_dtype(made.target, dtype)

    def wire(tensors: Sequence[torch.Tensor]) -> Wiring:
        example = first_rows(tensors[:-1], len(tensors[0]) // schedule.num_microbatches)
        with leaving_no_trace(), Autocast.of(experiment.precision, "cpu")():
            return try_forward(stages.modules, copies(stages.modules), example, relay)[1]

    shapes = Shapes.of(empty(batch(0)), stages.wiring)
    if not steps or (num_processes == 1 and all(plan.is_flat for plan in stages.wiring.stages)):
        return shapes
    instead = f"executor=native, or batches of one shape with executor={experiment.executor.choice}" * executor.relays
    try:
        return look(shapes, steps, batch, wire, schedule.num_microbatches, instead)
    except ConfigError:
        raise
    except ValueError as error:
        raise experiment.data.reword(error) from error


def _profiled(experiment: Experiment, pipeline: Pipeline) -> Pipeline:
    """With the steps that are profiled. Raises ConfigError: the run does not come to one of them."""
    if experiment.profile is None or not pipeline.steps_to_do:
        return pipeline
    try:
        steps = experiment.profile.chosen(pipeline.steps_to_do, pipeline.record_steps)
    except ArgumentError as error:
        raise ConfigError(error.at("profile.steps"), error) from error
    return replace(pipeline, profile=Profile(experiment.profile, steps))


def _check_start(experiment: Experiment, pipeline: Pipeline, trial: Trial) -> None:
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
        pipeline.fault.moment(pipeline.actions, pipeline.steps_to_do)
    model = pipeline.stages.model
    check_recipe(experiment, pipeline, model)
    try:
        try_optimizer(pipeline.optimizing, model, trial, may_draw=not pipeline.verify)
        check_alone(pipeline, model, trial)
    except Exception as error:
        raise experiment.optimizer.reword(error) from error
    if pipeline.saved is not None:
        check_saved(pipeline.optimizing, model, trial, pipeline.saved)
        _check_ranks(pipeline, pipeline.saved)
        if pipeline.recipe.ema is not None:
            check_averages(pipeline.saved, model)


def _check_checkpoints(experiment: Experiment, pipeline: Pipeline, trial: Trial) -> Pipeline:
    """A run that writes checkpoints can go on from them; or they say why not, where that was not asked for."""
    if pipeline.checkpoints is None:
        return pipeline
    model, num_microbatches = pipeline.stages.model, pipeline.schedule.num_microbatches
    inputs = inputs_of(model, pipeline.batch(0), pipeline.dtype)
    try:
        check_saving(pipeline.optimizing, model, trial)
        check_model(model, first_rows(inputs, len(inputs[0]) // num_microbatches))
    except ConfigError as error:
        if experiment.checkpoint.to_go_on:
            raise
        return replace(pipeline, origin={**pipeline.origin, CANNOT_RESUME: str(error)})
    return pipeline


def _check_ranks(pipeline: Pipeline, saved: Checkpoint) -> None:
    """Each rank's optimizer finds in the checkpoint what it goes on from."""
    for rank in range(pipeline.num_processes):
        named = {name: p for stage in pipeline.stages_of(rank) for name, p in pipeline.stages.parameters(stage).items()}
        if any(parameter.requires_grad for parameter in named.values()):
            pipeline.optimizing.of(named).restore(saved)


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


def _actions(experiment: Experiment, schedule: Schedule, placed: tuple[int, ...], stages: Stages) -> list[list[Action]]:
    """What each process executes. Who writes messages out has them where they are written; virtual ranks have none.

    Measured over gloo (``benchmarks/step.py``): receives posted first shorten the step of a rank with several stages by
    3 to 10 %, and lengthen that of 1F1B, whose neighbours then write to each other at the same moment.
    """
    actions = lower(schedule, placed, [(hop.before, hop.after) for hop in stages.wiring.skips])
    if len(actions) == 1 and schedule.num_ranks > 1:
        return [depth_first(actions[0], schedule.stage_to_rank)]
    has_several = schedule.num_stages > schedule.num_ranks
    if experiment.device == "cpu" and has_several and not schedule.has_messages:
        return [receives_first(of_process) for of_process in actions]
    return actions


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _split(
    experiment: Experiment,
    asked: Asked,
    model: nn.Module,
    data: Callable[[int], Batch],
    loss: nn.Module,
    dtype: torch.dtype,
) -> tuple[Stages, Sizes, Trial, Drawing | None]:
    batch = _first_batch(experiment, asked, data)
    try:
        inputs = inputs_of(model, batch, dtype)
        for tensor in (*inputs, batch.target):
            if not isinstance(tensor, torch.Tensor):
                raise ValueError(f"the target is {type(tensor).__name__}; valid: a tensor")
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
        scale = scaled(loss, asked.num_microbatches)
    except ValueError as error:
        raise experiment.loss.reword(error) from error
    try:
        target = to_dtype(batch.target[: asked.rows], dtype)
        split_backward = _split_backwards(experiment, sizes.schedule)
        executor = experiment.executor()
        relay = executor.relays or sizes.schedule.has_messages
        autocast = Autocast.of(experiment.precision, "cpu")
        trial = try_out(modules, example, target, scale, split_backward, executor.inspect, relay, autocast)
        stages = Stages.of(model, modules, trial.wiring)
        if experiment.verify:
            try_reference(model, example, target, scale)
    except ValueError as error:
        if "returns a" in str(error):
            check_output(output_of(model, example), experiment.output, type(model).__name__)
        raise experiment.model.reword(error) from error
    try:
        check_counts(loss, trial.wiring.stages[-1].outputs, batch.target, asked.num_microbatches)
    except ValueError as error:
        raise experiment.loss.reword(error) from error
    drawing, uncounted = find_drawing(model, modules, example, trial.moved)
    if uncounted is not None and experiment.verify:
        raise ConfigError(
            f"verify=true: model={experiment.model_name}, split={experiment.split_name}: {uncounted}, so one device "
            "draws other numbers; valid: functions of torch that draw without a generator=, or verify=false"
        )
    return stages, sizes, trial, drawing


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


def _check_devices(experiment: Experiment, num_ranks: int) -> None:
    if experiment.device != "cuda":
        return
    found = torch.cuda.device_count()
    if found < num_ranks:
        raise ConfigError(
            f"device=cuda: ranks={num_ranks} need {num_ranks} GPUs, and this machine has {found}; "
            f"valid: {'launch=virtual, ' if found else ''}device=cpu{f', ranks <= {found}' if found else ''}"
        )


def _check_precision(experiment: Experiment) -> None:
    try:
        Autocast.of(experiment.precision, experiment.device).check(experiment.precision_name)
    except ArgumentError as error:
        raise ConfigError(str(error), error, error.why) from error


def _check_weight_gradient(experiment: Experiment, stages: Stages, schedule: Schedule) -> None:
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


def _emulated(experiment: Experiment, sizes: Sizes) -> Cost | None:
    """What actions take where the run is to take that long; None where they take what they take."""
    if not experiment.launch.emulate:
        return None
    if experiment.device != "cpu":
        raise ConfigError(
            f"launch.emulate=true: devices of their own need no emulation; valid: device=cpu, "
            f"or launch.emulate=false with device={experiment.device}"
        )
    cost = experiment.cost(num_stages=sizes.num_stages, stages_per_rank=max(1, sizes.stages_per_rank))
    if not isinstance(cost, Cost):
        raise ConfigError(
            f"launch.emulate=true: cost={experiment.cost.choice} is not known before the run; "
            "valid: cost=unit, cost=table, cost=file"
        )
    if not cost.overlap or cost.overlap_gain:
        raise ConfigError(
            "launch.emulate=true: only messages that travel while ranks compute are emulated; "
            "valid: cost.overlap=true, cost.overlap_gain=0"
        )
    try:
        simulate(sizes.schedule, cost)
    except ValueError as error:
        raise experiment.cost.reword(error) from error
    return cost


def _identity(experiment: Experiment, schedule: Schedule) -> str:
    """What all ranks must agree on besides the parameters: 64 bytes in hex."""
    return (experiment.config_hash or "0" * 64).ljust(64, "0")[:64] + schedule.digest()
