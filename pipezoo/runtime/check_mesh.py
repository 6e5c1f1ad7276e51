"""What replicas of a pipeline cannot do, refused before a process starts."""

from __future__ import annotations

import torch

from pipezoo.errors import ConfigError
from pipezoo.experiment.experiment import Experiment
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.randomness import leaving_no_trace
from pipezoo.runtime.stages import first_rows, inputs_of
from pipezoo.splitters._copies import copies
from pipezoo.splitters._dry_run import same_bits


def check_mesh(experiment: Experiment) -> None:
    """Refuse what no launch of this run has. Raises ConfigError."""
    mesh = experiment.mesh
    if mesh.tp > 1:
        raise ConfigError(f"mesh.tp={mesh.tp}: stages are not shared by processes yet; valid: mesh.tp=1")
    if not mesh.is_plain and experiment.executor().relays:
        raise ConfigError(
            f"mesh.dp={mesh.dp}: executor={experiment.executor_name} adds up no gradients of replicas; "
            "valid: executor=native, or mesh.dp=1"
        )


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
