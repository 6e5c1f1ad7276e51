"""What replicas of a pipeline cannot do, refused before a process starts."""

from __future__ import annotations

import torch

from pipezoo.errors import ConfigError
from pipezoo.experiment.derive import Asked
from pipezoo.experiment.experiment import Experiment
from pipezoo.launch.mesh import Mesh
from pipezoo.runtime.draws import Drawing
from pipezoo.runtime.feed import Source
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.randomness import leaving_no_trace
from pipezoo.runtime.stages import Stages, first_rows, inputs_of
from pipezoo.runtime.tensor_parallel import Cuts, cuts_of
from pipezoo.runtime.try_out import Trial
from pipezoo.runtime.try_shards import check_shards
from pipezoo.runtime.try_tensor_parallel import try_cuts
from pipezoo.splitters._copies import copies
from pipezoo.splitters._dry_run import same_bits


def check_mesh(experiment: Experiment, spread: Mesh) -> None:
    """Refuse what replicas of no model can do.

    Args:
        spread: the mesh of processes.

    Raises:
        ConfigError: one line.
    """
    mesh = experiment.mesh
    if mesh.tp > 1:
        _check_tp(experiment)
    if not mesh.is_plain and experiment.executor().relays:
        raise ConfigError(
            f"mesh.dp={mesh.dp}: executor={experiment.executor_name} adds up no gradients of replicas; "
            "valid: executor=native, or mesh.dp=1"
        )
    if mesh.dp == 1 or mesh.dp_with == "ordered":
        return
    for wrong, why in (
        (mesh.tp > 1, f"mesh.tp={mesh.tp} has cut the stages already"),
        (spread.dp == 1, f"launch={experiment.launch_name} trains replicas in turn, and adds them up itself"),
        (experiment.weight_grad != "autograd", f"weight_grad={experiment.weight_grad} looks for parameters elsewhere"),
        (not experiment.executor().keeps_bits, "executor.compile=true compiles stages without torch's hooks"),
        (experiment.eval.weights == "ema", "eval.weights=ema puts averages where torch does not look"),
    ):
        if wrong:
            raise ConfigError(f"mesh.dp_with={mesh.dp_with}: {why}; valid: mesh.dp_with=ordered")


def _check_tp(experiment: Experiment) -> None:
    """What does not go with stages that are shared."""
    tp, executor = experiment.mesh.tp, experiment.executor()
    refused = {
        f"launch={experiment.launch_name}": (
            experiment.launch.spread(experiment.mesh).tp != tp,
            "one process has no part of a layer to share; valid: launch=processes",
        ),
        f"executor={experiment.executor_name}": (
            executor.relays,
            "its runtime knows nothing of layers in parts; valid: executor=native",
        ),
        "executor.compile=true": (
            not executor.keeps_bits,
            "stages whose layers talk to other processes are not compiled; valid: executor.compile=false",
        ),
        f"weight_grad={experiment.weight_grad}": (
            experiment.weight_grad != "autograd",
            "products of a layer are made of whole layers; valid: weight_grad=autograd",
        ),
    }
    for what, (is_so, why) in refused.items():
        if is_so:
            raise ConfigError(f"mesh.tp={tp}: {what}: {why}, or mesh.tp=1")


def cuts_of_run(
    experiment: Experiment, asked: Asked, stages: Stages, batch: Source, drawing: Drawing | None
) -> Cuts | None:
    """Which layers are cut, found and tried out. Raises ConfigError."""
    if experiment.mesh.tp == 1:
        return None
    cuts = cuts_of(experiment.tensor_plan, stages.model, experiment.mesh.tp)
    inputs = inputs_of(stages.model, batch(0), getattr(torch, experiment.dtype))
    return try_cuts(cuts, stages.modules, first_rows(inputs, asked.rows), drawing)


def check_replicas(pipeline: Pipeline, trial: Trial) -> None:
    """Refuse what replicas of this model cannot do.

    Raises:
        ConfigError: one line.
    """
    _check_buffers(pipeline)
    if pipeline.mesh.dp_with != "ordered":
        _check_wrapped(pipeline)
    if pipeline.mesh.dp_with == "fsdp":
        check_shards(pipeline, trial)


def _check_wrapped(pipeline: Pipeline) -> None:
    """What torch cannot wrap, a stage at a time."""
    held: dict[str, int] = {}
    for stage in range(pipeline.stages.num_stages):
        parameters = pipeline.stages.parameters(stage)
        for name, parameter in parameters.items():
            if name in held:
                why = f"stages {held[name]} and {stage} both hold {name}, and torch wraps each stage by itself"
            elif not parameter.dim():
                why = f"{name} is a number without a dimension, which torch does not wrap"
            elif not parameter.is_floating_point():
                why = f"{name} is {str(parameter.dtype)[6:]}, which torch does not wrap"
            elif parameter.dtype != (first := next(iter(parameters.values()))).dtype:
                why = f"stage {stage} has parameters of {str(first.dtype)[6:]} and of {str(parameter.dtype)[6:]}"
            else:
                held[name] = stage
                continue
            raise ConfigError(f"mesh.dp_with={pipeline.mesh.dp_with}: {why}; valid: mesh.dp_with=ordered")


def _check_buffers(pipeline: Pipeline) -> None:
    """Each replica would move its own buffers, by its own rows."""
    model = pipeline.stages.model
    inputs = inputs_of(model, pipeline.batch(0), pipeline.dtype)
    twin = copies([model])[0]
    before = {name: buffer.clone() for name, buffer in twin.named_buffers()}
    with leaving_no_trace(), torch.no_grad():
        twin(*first_rows(inputs, len(inputs[0]) // pipeline.num_slices))
    for name, buffer in twin.named_buffers():
        if not same_bits(before[name], buffer):
            raise ConfigError(
                f"mesh.dp={pipeline.mesh.dp}: a forward moves the buffer {name}, and each replica would move its own "
                "by its own rows; valid: launch=virtual, which trains replicas one after the other, or norms without "
                "running statistics"
            )
