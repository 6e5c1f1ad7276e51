"""What replicas of a pipeline cannot do, refused before a process starts."""

from __future__ import annotations

import torch

from pipezoo.errors import ConfigError
from pipezoo.experiment.derive import Asked
from pipezoo.experiment.experiment import Experiment
from pipezoo.runtime.draws import Drawing
from pipezoo.runtime.feed import Source
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.randomness import leaving_no_trace
from pipezoo.runtime.stages import Stages, first_rows, inputs_of
from pipezoo.runtime.tensor_parallel import Cuts, cuts_of
from pipezoo.runtime.try_tensor_parallel import try_cuts
from pipezoo.splitters._copies import copies
from pipezoo.splitters._dry_run import same_bits


def check_mesh(experiment: Experiment) -> None:
    """Refuse what no launch of this run has. Raises ConfigError."""
    mesh = experiment.mesh
    if mesh.tp > 1:
        _check_tp(experiment)
    if not mesh.is_plain and experiment.executor().relays:
        raise ConfigError(
            f"mesh.dp={mesh.dp}: executor={experiment.executor_name} adds up no gradients of replicas; "
            "valid: executor=native, or mesh.dp=1"
        )


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
    try_cuts(cuts, stages.modules, first_rows(inputs, asked.rows), drawing)
    return cuts


def check_buffers(pipeline: Pipeline) -> None:
    """Refuse buffers that a forward moves: each replica would move its own, by its own rows.

    Raises:
        ConfigError: one line.
    """
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
