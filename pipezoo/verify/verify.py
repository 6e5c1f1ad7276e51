"""The verdict: is what the pipeline computed what one device computes?

    exact    every loss, every gradient of the first step and every value after the last one, bit for bit
    close    all within the tolerance: max |ours - theirs| / max |theirs| of each tensor
    failed   one is not; or is NaN, missing, of another shape; or there was nothing to compare

A parameter that several stages hold is close, not exact: its gradient is added up in another order than one device
adds it (``tied_gradients.py``). All that follows from the first step is compared bit for bit even so.

Whether microbatches come to the same as the whole batch in one piece is a second question, about the model and its loss
and not about the pipeline: rows may act on each other (norms, contrastive losses), hooks may clip. ``whole_batch.py``
answers it beside the verdict. One answer is a failure: a loss that does not reduce as it says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from pipezoo.runtime.pipeline import Pipeline
from pipezoo.supervisor.worker_channel import WorkerChannel
from pipezoo.verify.compare import Difference, compare
from pipezoo.verify.one_device_step import Values
from pipezoo.verify.reference import Reference, train_on_one_device
from pipezoo.verify.rounding import makes_rounding_large
from pipezoo.verify.whole_batch import WholeBatch, against_the_whole_batch

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}

SKIPPED = "; every step had gradients beyond float16 and was skipped: more steps, or a smaller precision.start"


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Args:
        verified: ``exact``, ``close`` or ``failed``.
        first: the first difference beyond the tolerance, in words.
        failure: why it failed, in a sentence.
        full_batch_difference: of the first step's gradients to those of the whole batch in one piece, over the largest
            of them; None where they cannot be compared. It decides nothing.
        loss_reduces_as_it_says: False for a loss whose value does not follow its ``reduction``; None: not known.
    """

    verified: str
    max_relative_difference: float | None
    tolerance: float
    num_compared: int
    full_batch_difference: float | None
    loss_reduces_as_it_says: bool | None
    first: str | None
    failure: str | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def verify_run(
    losses: list[list[float]],
    tolerance: float | None,
    pipeline: Pipeline,
    channel: WorkerChannel,
    numbers: Sequence[Mapping[str, float]] = (),
) -> dict[str, Any]:
    """Train the reference, and hold the values that the ranks left in ``pipeline.scratch`` against it.

    Args:
        losses: ``[steps][num_microbatches + 1]`` of the pipeline, as in :class:`~pipezoo.verify.reference.Reference`.
        numbers: what else each step came to, where somebody listened.
        tolerance: for *close*; None: by dtype, ten times the noise of a correct pipeline.
    """
    torch.set_num_threads(pipeline.threads)

    def beat(step: int) -> None:
        channel.begin_step(step)

    if pipeline.evaluation is not None:  # it may have ended the training early
        pipeline = replace(pipeline, steps=pipeline.steps_to_do.start + len(losses))
    reference = train_on_one_device(pipeline, beat)
    within = _tolerance(pipeline) if tolerance is None else tolerance
    differences = list(_differences(pipeline, losses, numbers, reference))
    whole = against_the_whole_batch(pipeline, reference.gradients)
    hint = "" if pipeline.precision.scaling is None else SKIPPED
    return compare_runs(differences, within, whole, reference.gradients, hint).as_dict()


def _tolerance(pipeline: Pipeline) -> float:
    """That of the coarsest dtype that values cross in: a model may have an autocast of its own."""
    forms = [form for hop in pipeline.stages.wiring.hops for form in hop.forms if form.is_floating_point()]
    dtypes = {pipeline.autocast.dtype or pipeline.dtype, *(form.dtype for form in forms)}
    return max(TOLERANCE.get(dtype, 0.0) for dtype in dtypes)


def compare_runs(
    differences: list[Difference], tolerance: float, whole: WholeBatch, gradients: Values, hint: str = ""
) -> Verdict:
    """The verdict over all differences. ``tolerance`` never turns equal bits into a failure.

    Args:
        hint: why there may be no gradients, for the sentence that says so.
    """
    worst = max((d.relative for d in differences), default=math.inf)
    beyond = [d for d in differences if not (d.bits_equal or d.relative <= tolerance)]
    failure = f"the pipeline does not compute what one device computes: {beyond[0]}" if beyond else None
    if not differences or not any(gradient is not None for gradient in gradients.values()):
        failure = f"nothing was verified: there is no gradient to compare{hint}"
    elif not any(bool(gradient.any()) for gradient in gradients.values() if gradient is not None):
        failure = failure or "nothing was verified: every gradient of the first step is zero"
    elif whole.lie is not None:
        failure = failure or whole.lie
    agreed = "exact" if all(d.bits_equal for d in differences) else "close"
    return Verdict(
        "failed" if failure else agreed,
        worst if math.isfinite(worst) else None,
        tolerance,
        len(differences),
        whole.difference,
        whole.reduces_as_it_says,
        str(beyond[0]) if beyond else None,
        failure,
    )


def _differences(
    pipeline: Pipeline, losses: list[list[float]], numbers: Sequence[Mapping[str, float]], reference: Reference
) -> Iterator[Difference]:
    """In the order of time: the first loss, its gradients, the other losses, what is there after the last step."""
    if len(losses) != len(reference.losses):
        yield Difference("number of steps", None, math.inf, len(losses), len(reference.losses))
    by_step = [
        compare(
            f"loss of step {step}",
            pipeline.stages.num_stages - 1,
            torch.tensor(ours, dtype=torch.float64),
            torch.tensor(theirs, dtype=torch.float64),
        )
        for step, (ours, theirs) in zip(pipeline.steps_to_do, zip(losses, reference.losses, strict=False), strict=False)
    ]
    besides = list(_numbers(pipeline, numbers, reference))
    yield from by_step[:1]
    first = pipeline.steps_to_do.start + pipeline.recipe.accumulate - 1
    yield from _values(pipeline, "first", f"gradient of {{}} in step {first}", reference.gradients)
    yield from reference.tied_parameters
    yield from besides[0] if besides else ()
    if not is_followed(pipeline):
        return
    for at in range(1, len(by_step)):
        yield by_step[at]
        yield from besides[at] if at < len(besides) else ()
    yield from _averages(pipeline, reference)
    yield from _values(pipeline, "last", f"{{}} after step {pipeline.steps - 1}", reference.last)


def is_followed(pipeline: Pipeline) -> bool:
    """Whether what follows the first update is compared; not where its optimizer makes another rounding large."""
    in_parts = pipeline.cuts is not None and makes_rounding_large(pipeline.optimizer)
    return pipeline.keeps_bits and not in_parts


def _numbers(
    pipeline: Pipeline, ours: Sequence[Mapping[str, float]], reference: Reference
) -> Iterator[list[Difference]]:
    """Of each step, what it came to besides its losses: the norm of its gradients."""
    for step, found, expected in zip(pipeline.steps_to_do, ours, reference.numbers, strict=False):
        pairs = ((name, found.get(name), value) for name, value in expected.items())
        yield [compare(f"{name} of step {step}", None, _number(mine), _number(value)) for name, mine, value in pairs]


def _averages(pipeline: Pipeline, reference: Reference) -> Iterator[Difference]:
    """The moving averages of every rank, where they are kept."""
    for rank in range(pipeline.pp if reference.averages else 0):
        (ours,) = pipeline.load(f"average{rank}.pt").values()
        own = {name for stage in pipeline.stages_of(rank) for name in pipeline.stages.parameters(stage)}
        for name in (name for name in reference.averages if name in own):
            yield compare(f"average of {name}", None, ours.get(name), reference.averages[name])


def _number(value: float | None) -> torch.Tensor | None:
    return None if value is None else torch.tensor(value, dtype=torch.float64)


def _values(pipeline: Pipeline, when: str, title: str, expected: Values) -> Iterator[Difference]:
    learning = {name for name, _ in pipeline.stages.model.named_parameters()}
    for stage, values in sorted(_left_by_ranks(pipeline, when).items()):
        for name in dict.fromkeys(pipeline.stages.names[stage].values()):
            if name in values or name in expected:
                buffer = when == "last" and name not in learning
                yield compare(title.format(name), stage, values.get(name), expected.get(name), may_be_infinite=buffer)


def _left_by_ranks(pipeline: Pipeline, when: str) -> dict[int, Values]:
    found: dict[int, Values] = {}
    for rank in range(pipeline.pp):
        found.update({int(stage): values for stage, values in pipeline.load(f"{when}{rank}.pt").items()})
    missing = set(range(pipeline.stages.num_stages)) - set(found)
    return {**found, **{stage: {} for stage in missing}}
