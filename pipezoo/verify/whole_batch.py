"""Microbatches against the whole batch in one piece: a question about the model and its loss, not about the pipeline.

    gradients    of the first step by microbatches, and of one forward and backward of the whole batch
    reduction    the loss of a batch, and of the same batch with every row twice: a mean stays, a sum doubles

Where rows do not act on each other both are equal but for rounding. Batch norm, contrastive and masked losses, hooks
that clip and coarse dtypes make the gradients differ, and the pipeline is right all the same. A loss that says ``mean``
and doubles with its rows is another matter: it would be weighted wrong in every run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from pipezoo.runtime.pipeline import Pipeline
from pipezoo.splitters._dry_run import seed
from pipezoo.verify.compare import compare
from pipezoo.verify.one_device_step import Values
from pipezoo.verify.reference import batch_on

SAME = 1e-3  # relative: how far a loss that does not change may be from itself


@dataclass(frozen=True)
class WholeBatch:
    """What the comparison came to.

    Args:
        difference: largest difference of a gradient over the largest gradient; None where there is none to compare.
        reduces_as_it_says: whether the loss follows its ``reduction``; None where that cannot be told.
        lie: what the loss does instead, in a sentence; None where it says the truth.
    """

    difference: float | None
    reduces_as_it_says: bool | None
    lie: str | None = None


def against_the_whole_batch(pipeline: Pipeline, by_microbatches: Values) -> WholeBatch:
    """Compare; a model or a loss that cannot take the whole batch, or twice its rows, leaves a part unknown."""
    device = pipeline.rank_device(0)
    model = pipeline.fresh_model().to(device)
    loss = pipeline.loss.to(device)
    try:
        for step in pipeline.steps_to_do[: pipeline.recipe.accumulate]:
            inputs, target = batch_on(device, pipeline, model, step)
            with pipeline.autocast():
                output = model(*inputs)
                value = loss(output, target)
            (value / pipeline.loss_divisor).backward()
    except Exception:
        return WholeBatch(None, None)
    whole = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    scaled = pipeline.precision.scaling is not None  # the first steps may be skipped, and small gradients are zero here
    draws = pipeline.drawing is not None  # other numbers
    difference = None if scaled or draws else _difference(by_microbatches, whole)
    if not isinstance(output, torch.Tensor):
        return WholeBatch(difference, None)
    lie, known = _reduction(loss, output.detach(), target)
    return WholeBatch(difference, None if lie is None and not known else lie is None, lie)


def _difference(by_microbatches: Values, whole: Values) -> float | None:
    """Measured against the model's largest gradient: one that is zero but for rounding would differ by all it is."""
    largest = max((float(g.abs().max()) for g in whole.values() if g is not None and g.numel()), default=0.0)
    differences = [compare(name, None, gradient, whole.get(name)) for name, gradient in by_microbatches.items()]
    distances = [found.distance for found in differences if not found.bits_equal]
    if not largest or not math.isfinite(largest) or any(map(math.isnan, distances)):
        return None
    return max(distances, default=0.0) / largest


def _reduction(loss: nn.Module, output: torch.Tensor, target: torch.Tensor) -> tuple[str | None, bool]:
    """What the loss does other than its ``reduction`` says, if anything; and whether that could be told."""
    says = getattr(loss, "reduction", None)
    try:
        once, again = _value(loss, output, target), _value(loss, output, target)
        doubled = _value(loss, torch.cat([output, output]), torch.cat([target, target]))
    except Exception:
        return None, False
    if not all(map(math.isfinite, (once, again, doubled))) or once == 0.0:
        return None, False
    if not _same(once, again):
        return f"the loss has another value for the same output and target: {once:.6g}, then {again:.6g}", True
    if says == "mean" and _same(doubled, 2 * once):
        return "the loss says reduction=mean, but it doubles with the rows of a batch; valid: reduction=sum", True
    if says == "sum" and _same(doubled, once):
        return "the loss says reduction=sum, but it stays with twice the rows of a batch; valid: reduction=mean", True
    return None, _same(doubled, once if says == "mean" else 2 * once)


def _value(loss: nn.Module, output: torch.Tensor, target: torch.Tensor) -> float:
    """With the same random numbers each time."""
    with torch.no_grad(), torch.random.fork_rng(devices=[output.device] if output.is_cuda else []):
        seed(0)
        return float(loss(output, target))


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= SAME * max(abs(one), abs(other))
