"""Everything that is decided before a process starts: the model is built, split, tried out, and its order lowered.

What is wrong with a run is found here, in the parent, and said in one line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.experiment.derive import Asked, Sizes, derive
from pipezoo.experiment.experiment import Experiment
from pipezoo.launch.mesh import Mesh
from pipezoo.runtime.allocation_guard import AllocationGuard, check_model_fits
from pipezoo.runtime.autocast import Autocast
from pipezoo.runtime.batch_shapes import Shapes, look
from pipezoo.runtime.check_mesh import check_mesh, check_replicas, cuts_of_run
from pipezoo.runtime.check_start import (
    check_checkpoints,
    check_devices,
    check_precision,
    check_start,
    check_weight_gradient,
)
from pipezoo.runtime.held_out import check_evaluation
from pipezoo.runtime.parts import Parts, parts_of
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.profiler import Profile
from pipezoo.runtime.randomness import leaving_no_trace
from pipezoo.runtime.split_model import Split, split_model
from pipezoo.runtime.stages import Stages, empty, first_rows, inputs_of
from pipezoo.runtime.try_forward import try_forward
from pipezoo.runtime.try_recipe import lr_schedule
from pipezoo.runtime.wiring import Wiring
from pipezoo.schedule.action import Action
from pipezoo.schedule.depth_first import depth_first
from pipezoo.schedule.lowering import lower, receives_first, with_sharding
from pipezoo.schedule.nccl_order import check_queues
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import simulate
from pipezoo.splitters._copies import copies

LONGEST = 1e6  # seconds that torch's own deadlines can be; ours have no end


def build_pipeline(
    experiment: Experiment,
    scratch: Path,
    checkpoints: Path | None = None,
    proved: bool = False,
    start: Path | None = None,
) -> tuple[Pipeline, Sizes]:
    """The pipeline of an experiment, ready to launch, and the numbers that were derived for it.

    Args:
        scratch: a private folder that the processes of the run share.
        checkpoints: where its checkpoints go, if it is to write some.
        proved: whether another process has tried it all out, so that nothing is copied or stepped here.
        start: the values of the model before the first step, as that one left them; None: they are made.

    Raises:
        ConfigError: the experiment cannot run, in the user's spelling.
    """
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # nor would CUDA, which tracing asks for otherwise
    check_precision(experiment)
    asked = derive(experiment)
    if not proved:
        check_model_fits(experiment, getattr(torch, experiment.dtype))
    with AllocationGuard():
        parts = parts_of(experiment, asked.batch_size, start)
    split = split_model(experiment, asked, parts.model, parts.data, parts.loss, parts.dtype, proved)
    processes = _processes(experiment, split)
    pipeline = _profiled(experiment, _pipeline(experiment, asked, parts, split, processes, scratch, checkpoints))
    try:
        pipeline.executor.check(pipeline)
    except ValueError as error:
        raise experiment.executor.reword(error) from error
    if not proved:
        pipeline = _tried(experiment, pipeline, parts, split)
    return pipeline, split.sizes


class _Processes(NamedTuple):
    """The processes of a run: the one of each stage in a pipeline, and the mesh of all."""

    stage_to_rank: tuple[int, ...]
    spread: Mesh

    @property
    def number(self) -> int:
        return self.spread.num_processes(max(self.stage_to_rank) + 1)


def _processes(experiment: Experiment, split: Split) -> _Processes:
    """Where the stages go. Raises ConfigError where that is not possible here."""
    schedule = split.sizes.schedule
    processes = _Processes(experiment.launch.placement(schedule), experiment.launch.spread(experiment.mesh))
    check_mesh(experiment, processes.spread)
    check_devices(experiment, experiment.launch.num_gpus(processes.number))
    if experiment.device == "cuda" and processes.number > 1 and schedule.has_messages:
        check_queues(schedule)
    check_weight_gradient(experiment, split.stages, schedule)
    return processes


def _pipeline(
    experiment: Experiment,
    asked: Asked,
    parts: Parts,
    split: Split,
    processes: _Processes,
    scratch: Path,
    checkpoints: Path | None,
) -> Pipeline:
    stages, sizes, schedule, placed = split.stages, split.sizes, split.sizes.schedule, processes.stage_to_rank
    return Pipeline(
        stages=stages,
        schedule=schedule,
        actions=_of_replicas(_actions(experiment, schedule, placed, stages), processes.spread),
        stage_to_rank=placed,
        fresh_model=parts.fresh_model,
        batch=parts.data,
        shapes=_shapes(experiment, parts, split, processes.number),
        loss=parts.loss,
        optimizer=lambda parameters: experiment.optimizer(params=parameters),
        lr_schedule=partial(lr_schedule, experiment),
        executor=experiment.executor(),
        drawing=split.drawing,
        scratch=scratch,
        steps=experiment.steps,
        seed=experiment.seed,
        dtype=parts.dtype,
        device=experiment.device,
        threads=experiment.launch.threads_of(processes.number, num_cores()),
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
        saved=parts.saved,
        origin=parts.origin,
        checkpoints=checkpoints if experiment.checkpoint.every or experiment.eval.best else None,
        checkpoint_every=experiment.checkpoint.every or experiment.steps,
        evaluation=parts.evaluation,
        leaves_weights=any(getattr(part.function, "wants_weights", False) for part in experiment.exports),
        mesh=experiment.mesh,
        spread=processes.spread,
        cuts=cuts_of_run(experiment, asked, stages, parts.data, split.drawing),
    )


def _tried(experiment: Experiment, pipeline: Pipeline, parts: Parts, split: Split) -> Pipeline:
    """What can be seen before a step: that it can begin, and go on from what it saves. Raises ConfigError."""
    check_start(experiment, pipeline, split.trial)
    if pipeline.spread.dp > 1:
        check_replicas(pipeline, split.trial)
    if parts.evaluation is not None:
        counts = pipeline.num_processes, split.sizes.num_slices
        modules = split.stages.modules
        check_evaluation(parts.evaluation, parts.on_one_device, pipeline.shapes, parts.model, modules, *counts)
    return check_checkpoints(experiment, pipeline, split.trial)


def _shapes(experiment: Experiment, parts: Parts, split: Split, num_processes: int) -> Shapes:
    """The shapes of this run's batches. One process whose stages hand on tensors alone needs no more than the first."""
    stages, sizes = split.stages, split.sizes
    steps = range(parts.saved.step if parts.saved else 0, experiment.steps)
    executor = experiment.executor()
    relay = executor.relays or sizes.schedule.has_messages

    def batch(step: int) -> tuple[torch.Tensor, ...]:
        inputs, judged = parts.on_one_device(parts.data(step))
        return *inputs, *judged

    def wire(tensors: Sequence[torch.Tensor]) -> Wiring:
        example = first_rows(tensors[:num_inputs], len(tensors[0]) // sizes.num_slices)
        with leaving_no_trace(), Autocast.of(experiment.precision, "cpu")():
            return try_forward(stages.modules, copies(stages.modules), example, relay)[1]

    num_inputs = len(inputs_of(parts.model, parts.data(0), parts.dtype))
    shapes = Shapes.of(empty(batch(0)), stages.wiring, num_inputs)
    if not steps or (num_processes == 1 and all(plan.is_flat for plan in stages.wiring.stages)):
        return shapes
    instead = f"executor=native, or batches of one shape with executor={experiment.executor.choice}" * executor.relays
    try:
        return look(shapes, steps, batch, wire, sizes.num_slices, instead)
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


def _of_replicas(actions: list[list[Action]], spread: Mesh) -> list[list[Action]]:
    """With what torch's replicas do with each other, where there are some."""
    if spread.dp == 1 or spread.dp_with == "ordered":
        return actions
    return [with_sharding(of_process) for of_process in actions]


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
