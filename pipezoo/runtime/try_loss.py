"""The loss, tried before any process starts: whether it takes what the model returns, and what its mean is over.

a mean over rows                    sum / mean = 128    128    128    128      each microbatch counts the same
a mean over what is no padding      sum / mean =  97    112     85      0      and has to say what counts
"""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import torch
from torch import nn

from pipezoo.errors import ArgumentError, first_line
from pipezoo.runtime.judged import parts_of, tensors_in
from pipezoo.runtime.microbatching import LossFunction, count_of
from pipezoo.runtime.randomness import leaving_no_trace
from pipezoo.runtime.try_forward import Ran
from pipezoo.runtime.wiring import StagePlan
from pipezoo.skips import WithSkips
from pipezoo.splitters._dry_run import seed

MOST = 2**24  # elements of outputs that are tried
SAME = 1e-3  # relative
BROADCAST = "Using a target size"  # how torch's losses begin to warn that they compare each row with all others


def check_counts(loss: nn.Module, last: StagePlan, target: Any, num_microbatches: int) -> None:
    """Refuse a mean that is over more in one microbatch than in another, where the loss does not say over how much.

    Args:
        last: what the last stage returns for one microbatch.
        target: what the loss is given of the whole batch.

    Raises:
        ArgumentError: of ``reduction``.
    """
    outputs, (own, _) = last.outputs, parts_of(target)
    if getattr(loss, "reduction", None) != "mean" or count_of(loss) is not None:
        return
    if len(outputs) != 1 or not isinstance(own, torch.Tensor):  # a sum of several means is over no one number
        return
    tried = min(num_microbatches, MOST // max(1, outputs[0].numel()))
    if tried < 2 or not outputs[0].is_floating_point():
        return
    total = copy.deepcopy(loss)
    total.reduction = "sum"  # type: ignore[assignment]
    counts = []
    with leaving_no_trace(), torch.no_grad():
        try:
            output = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(0)).to(outputs[0].dtype)
            for part in torch.tensor_split(target, num_microbatches)[:tried]:
                seed(0)  # for a loss that draws, the same numbers twice
                summed = float(total(output, part))
                seed(0)
                mean = float(loss(output, part))
                counts.append(0.0 if not summed and math.isnan(mean) else summed / mean)
        except Exception:  # it knows no sum, or no outputs but its model's
            return
    if all(map(math.isfinite, counts)) and max(counts) - min(counts) > SAME * max(counts):
        why = f"is over {min(counts):.4g} numbers in one microbatch and over {max(counts):.4g} in another (padding?)"
        valid = "reduction=sum, or a loss with ignore_index or a method count(target) that says how many"
        raise ArgumentError("reduction", "mean", why, valid)


def loss_of(last: Ran, target: Any, loss: LossFunction) -> torch.Tensor:
    """The loss of what the last stage returned.

    Raises:
        ValueError: it fails, or is no number that a gradient can flow from.
    """
    returned = last.returned
    if isinstance(returned, WithSkips):
        if returned.skips:
            raise ValueError("the last stage returns a skip, and no stage comes after it")
        returned = returned.output
    outputs = tuple(leaf for leaf in last.leaves if isinstance(leaf, torch.Tensor))
    if not outputs:
        raise ValueError("the last stage returns nothing; the loss takes a tensor or several")
    if not any(one.requires_grad for one in outputs):
        raise ValueError("no parameter of the model learns: its output does not require a gradient")
    is_one = len(outputs) == 1 and isinstance(returned, (torch.Tensor, tuple))
    if is_one and isinstance(target, torch.Tensor):
        _check_shapes(outputs[0], target)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", BROADCAST)
            value = loss(returned, target)
    except Exception as error:
        if not isinstance(returned, (torch.Tensor, tuple)):
            kind = type(returned).__name__
            raise ValueError(f"the last stage returns a {kind}, and the loss fails: {first_line(error)}") from error
        if is_one and not outputs[0].dim():
            why = "the model returns one number, as one does that computes its loss"
            raise ValueError(f"{why}; valid: loss=model") from None
        shapes, targets = (", ".join(str(tuple(t.shape)) for t in some) for some in (outputs, tensors_in(target)))
        several = f" (the model returns {len(outputs)} tensors, and the loss gets them all)" if len(outputs) > 1 else ""
        raise ValueError(
            f"the loss fails on output {shapes}, target {targets}: {first_line(error)}{several}"
        ) from error
    if not isinstance(value, torch.Tensor) or value.dim() or not value.requires_grad:
        raise ValueError("the loss must be one number that a gradient can flow from; valid reductions: mean, sum")
    if value.is_complex():
        raise ValueError("the loss is a complex number, which has no gradient to go down; valid: a real one")
    return value


def _check_shapes(output: torch.Tensor, target: torch.Tensor) -> None:
    """A target of another shape would be broadcast, and the loss be that of something else."""
    same_kind = target.is_floating_point() == output.is_floating_point()
    if same_kind and target.dim() == output.dim() and target.shape != output.shape:
        raise ValueError(
            f"the target has shape {tuple(target.shape)}, but the model returns {tuple(output.shape)} for it"
        )
