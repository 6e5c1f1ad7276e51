"""Whether a mean over a batch is the mean of the means of its microbatches, tried before any process starts.

a mean over rows                    sum / mean = 128    128    128    128      each microbatch counts the same
a mean over what is no padding      sum / mean =  97    112     85      0      and has to say what counts
"""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from pipezoo.errors import ArgumentError
from pipezoo.runtime.microbatching import count_of
from pipezoo.runtime.randomness import leaving_no_trace

MOST = 2**24  # elements of outputs that are tried
SAME = 1e-3  # relative


def check_counts(
    loss: nn.Module, outputs: tuple[torch.Tensor, ...], target: torch.Tensor, num_microbatches: int
) -> None:
    """Refuse a mean that is over more in one microbatch than in another, where the loss does not say over how much.

    Args:
        outputs: what the model returns for one microbatch, without memory.
        target: of the whole batch.

    Raises:
        ArgumentError: of ``reduction``.
    """
    if getattr(loss, "reduction", None) != "mean" or count_of(loss) is not None or len(outputs) != 1:
        return
    tried = min(num_microbatches, MOST // max(1, outputs[0].numel()))
    if tried < 2 or not outputs[0].is_floating_point():
        return
    total = copy.copy(loss)
    total.reduction = "sum"  # type: ignore[assignment]
    counts = []
    with leaving_no_trace(), torch.no_grad():
        try:
            output = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(0)).to(outputs[0].dtype)
            for part in torch.tensor_split(target, num_microbatches)[:tried]:
                torch.manual_seed(0)  # for a loss that draws, the same numbers twice
                summed = float(total(output, part))
                torch.manual_seed(0)
                mean = float(loss(output, part))
                counts.append(0.0 if not summed and math.isnan(mean) else summed / mean)
        except Exception:  # it knows no sum, or no outputs but its model's
            return
    if all(map(math.isfinite, counts)) and max(counts) - min(counts) > SAME * max(counts):
        why = f"is over {min(counts):.4g} numbers in one microbatch and over {max(counts):.4g} in another (padding?)"
        valid = "reduction=sum, or a loss with ignore_index or a method count(target) that says how many"
        raise ArgumentError("reduction", "mean", why, valid)
