"""The verdict: is what the pipeline computed what one device computes?

    exact    every loss, every gradient of the first step and every value after the last one, bit for bit
    close    all within the tolerance: max |ours - theirs| / max |theirs| of each tensor
    failed   one is not; or is NaN, missing, of another shape; or there was nothing to compare

A parameter that several stages hold is close, not exact: its gradient is added up in another order than one device
adds it (``shares.py``). All that follows from the first step is compared bit for bit even so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from pipezoo.runtime.pipeline import Pipeline
from pipezoo.supervisor.worker_channel import WorkerChannel
from pipezoo.verify.compare import Difference, compare
from pipezoo.verify.reference import Reference, Values, full_batch_gradients, mixes_rows, train_on_one_device

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass(frozen=True)
class Verdict:
    """``verified`` is ``exact``, ``close`` or ``failed``; ``first`` is the first difference beyond the tolerance, in
    words."""

    verified: str
    max_relative_difference: float | None
    tolerance: float
    num_compared: int
    full_batch_difference: float | None
    first: str | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def verify_run(
    losses: list[list[float]], tolerance: float | None, pipeline: Pipeline, channel: WorkerChannel
) -> dict[str, Any]:
    """Train the reference, and hold the values that the ranks left in ``pipeline.scratch`` against it.

    Args:
        losses: ``[steps][num_microbatches + 1]`` of the pipeline, as in :class:`~pipezoo.verify.reference.Reference`.
        tolerance: for *close*; None: by dtype, ten times the noise of a correct pipeline.
    """
    torch.set_num_threads(pipeline.threads)

    def beat(step: int) -> None:
        channel.begin_step(step)

    reference = train_on_one_device(pipeline, beat)
    within = TOLERANCE[pipeline.dtype] if tolerance is None else tolerance
    differences = list(_differences(pipeline, losses, reference))
    full_batch = _full_batch_difference(pipeline, reference)
    return compare_runs(differences, within, full_batch, reference.gradients).as_dict()


def compare_runs(
    differences: list[Difference], tolerance: float, full_batch: float | None, gradients: Values
) -> Verdict:
    """The verdict over all differences."""
    worst = max((d.relative for d in differences), default=math.inf)
    beyond = [d for d in differences if not d.relative <= tolerance]
    first = str(beyond[0]) if beyond else None
    if not differences or not any(gradient is not None for gradient in gradients.values()):
        first = "nothing was compared"
    elif not any(bool(gradient.any()) for gradient in gradients.values() if gradient is not None):
        first = "every gradient of the first step is zero, so nothing was verified"
    elif full_batch is not None and not full_batch <= tolerance:
        first = first or f"the gradients of the whole batch in one piece differ by {full_batch:.2g}"
    agreed = "exact" if all(d.bits_equal for d in differences) else "close"
    verified = "failed" if first else agreed
    return Verdict(verified, worst if math.isfinite(worst) else None, tolerance, len(differences), full_batch, first)


def _differences(pipeline: Pipeline, losses: list[list[float]], reference: Reference) -> Iterator[Difference]:
    """In the order of time: the first loss, its gradients, the other losses, what is there after the last step."""
    if len(losses) != len(reference.losses):
        yield Difference("number of steps", None, math.inf, len(losses), len(reference.losses))
    by_step = [
        compare(
            f"loss of step {step}",
            pipeline.stages.num_stages - 1,
            torch.tensor(ours).double(),
            torch.tensor(theirs).double(),
        )
        for step, (ours, theirs) in zip(pipeline.steps_to_do, zip(losses, reference.losses, strict=False), strict=False)
    ]
    yield from by_step[:1]
    yield from _values(pipeline, "first", f"gradient of {{}} in step {pipeline.steps_to_do.start}", reference.gradients)
    yield from reference.tied_parameters
    yield from by_step[1:]
    yield from _values(pipeline, "last", f"{{}} after step {pipeline.steps - 1}", reference.last)


def _values(pipeline: Pipeline, when: str, title: str, expected: Values) -> Iterator[Difference]:
    for stage, values in sorted(_left_by_ranks(pipeline, when).items()):
        for name in dict.fromkeys(pipeline.stages.names[stage].values()):
            if name in values or name in expected:
                yield compare(title.format(name), stage, values.get(name), expected.get(name))


def _left_by_ranks(pipeline: Pipeline, when: str) -> dict[int, Values]:
    found: dict[int, Values] = {}
    for rank in range(pipeline.num_processes):
        found.update({int(stage): values for stage, values in pipeline.load(f"{when}{rank}.pt").items()})
    missing = set(range(pipeline.stages.num_stages)) - set(found)
    return {**found, **{stage: {} for stage in missing}}


def _full_batch_difference(pipeline: Pipeline, reference: Reference) -> float | None:
    """The largest difference of all gradients, measured against the model's largest gradient.

    It tells whether microbatches are weighted right, which shows in all gradients alike. Measured against its own
    tensor, a gradient that is zero but for rounding (of a bias in front of a normalisation) would differ by all it is.
    """
    if mixes_rows(pipeline.stages.model):
        return None
    theirs = full_batch_gradients(pipeline)
    largest = max((gradient.abs().max().item() for gradient in theirs.values() if gradient is not None), default=0.0)
    differences = [compare(name, None, gradient, theirs[name]) for name, gradient in reference.gradients.items()]
    distances = [difference.distance for difference in differences if not difference.bits_equal]
    if not largest or any(map(math.isnan, distances)):
        return math.inf
    return max(distances, default=0.0) / largest
