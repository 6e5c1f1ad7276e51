"""Small jobs, built without a config: a model, a splitter, an order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipezoo.data.regression import batches
from pipezoo.executors.native import native
from pipezoo.experiment.precision import Precision
from pipezoo.launch.mesh import Mesh
from pipezoo.runtime.autocast import Autocast
from pipezoo.runtime.batch_shapes import Shapes
from pipezoo.runtime.measurements import Steps
from pipezoo.runtime.microbatching import scaled
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.rank import run_rank
from pipezoo.runtime.stages import Stages, empty, first_rows, inputs_of, make_model, to_dtype
from pipezoo.runtime.try_out import try_out
from pipezoo.schedule.lowering import lower
from pipezoo.schedule.schedule import Schedule
from pipezoo.splitters.modules import split as split_modules
from pipezoo.supervisor.supervisor import Handlers, Limits, launch
from pipezoo.transports.distributed import Distributed
from pipezoo.verify.verify import verify_run

ROWS = 4  # of a microbatch
WIDTH = 16


@dataclass(frozen=True)
class Trained:
    """What a pipeline told of itself: losses and numbers of its steps, the verdict, what each process returned."""

    losses: list[list[float]]
    numbers: list[dict[str, float]]
    verdict: dict[str, Any]
    told: list[dict[str, Any]]


def build_pipeline(
    scratch: Path,
    model: Callable[[], torch.nn.Module],
    schedule: Schedule,
    split: Callable[..., Sequence[torch.nn.Module]] = split_modules,
    extra: Sequence[str] = (),
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> Pipeline:
    torch.set_num_threads(1)
    mesh = changes.get("mesh", Mesh())
    num_slices = schedule.num_microbatches * mesh.dp
    data = batches(ROWS * num_slices, 0, WIDTH, extra)
    whole = make_model(model, 0, dtype)
    loss = changes.get("loss", torch.nn.MSELoss())
    batch = data(0)
    example = first_rows(inputs_of(whole, batch, dtype), ROWS)
    modules = split(whole, schedule.num_stages, example)
    executor = changes.get("executor", native())
    wiring = try_out(
        modules,
        example,
        batch.target[:ROWS].to(dtype),
        scaled(loss, num_slices),
        relay=executor.relays or schedule.has_messages,
        autocast=Autocast.of(changes.get("precision", Precision()), "cpu"),
    ).wiring
    pipeline = Pipeline(
        stages=Stages.of(whole, modules, wiring),
        schedule=schedule,
        actions=lower(schedule, skips=[(hop.before, hop.after) for hop in wiring.skips]),
        stage_to_rank=schedule.stage_to_rank,
        fresh_model=partial(make_model, model, 0, dtype),
        batch=data,
        shapes=Shapes.of(empty((*inputs_of(whole, batch, dtype), to_dtype(batch.target, dtype))), wiring),
        loss=loss,
        executor=native(),
        optimizer=partial(torch.optim.SGD, lr=1e-3, momentum=0.9),
        scratch=scratch,
        steps=3,
        seed=0,
        dtype=dtype,
        device="cpu",
        threads=1,
        record_steps=1,
        own_weight_gradient=False,
        verify=True,
        on_nonfinite="stop",
        timeout=30.0,
        identity="00" * 32,
    )
    placed = changes.get("stage_to_rank", schedule.stage_to_rank)
    spread = mesh if len(set(placed)) > 1 or schedule.num_ranks == 1 else Mesh()
    return replace(pipeline, **{"transport": Distributed(), "spread": spread, **changes})


def train(pipeline: Pipeline) -> Trained:
    limits, log = Limits(20.0, 20.0), pipeline.file("log")
    names = pipeline.spread.names([f"rank {rank}" for rank in range(pipeline.pp)])
    steps = Steps(len(names), lambda *_: None, {name: pipeline.place(i).dp for i, name in enumerate(names)})
    ranks = {name: partial(run_rank, process, pipeline) for process, name in enumerate(names)}
    told = launch(ranks, limits, log, handlers=Handlers(step=steps.on_message))
    judged = partial(verify_run, steps.losses, None, pipeline, numbers=steps.numbers)
    verdict = launch({"reference": judged}, limits, log)["reference"]
    return Trained(steps.losses, steps.numbers, verdict, [told[names[process]] for process in pipeline.writers])
