"""The unsplit model on one device, tried before any process starts: a verdict needs it to run, and to repeat itself."""

from __future__ import annotations

import torch
from torch import nn

from pipezoo.errors import first_line
from pipezoo.runtime.randomness import generators, generators_moved_since, leaving_no_trace
from pipezoo.runtime.stages import LossFunction, Tensors
from pipezoo.runtime.trees import map_tensors
from pipezoo.runtime.try_out import in_a_fork_beside_gpus
from pipezoo.splitters._copies import copies
from pipezoo.splitters._dry_run import CHANGES_ITS_MIND, run, same_bits

BACKWARD = (
    "its backward draws random numbers (a hook may), in another order on ranks than on one device; "
    "valid: hooks that draw none, or verify=false"
)


def try_reference(model: nn.Module, example: Tensors, target: torch.Tensor, loss: LossFunction) -> None:
    """One microbatch, forwards twice and backwards once, on copies.

    Raises:
        ValueError: the output is another one the second time, the backward draws random numbers, or it fails: a cut may
            hide what one device does not allow, as a change in place of what autograd has kept.
    """
    first = map_tensors(torch.Tensor.detach, run(copies([model]), example))  # without its graph: one copy at a time
    output = run(copies([model]), example)
    if not same_bits(first, output):
        raise ValueError(CHANGES_ITS_MIND)
    try:
        with leaving_no_trace():
            value = loss(output, target)
            in_a_fork_beside_gpus(lambda: _backward(value))
    except Exception as error:
        if str(error) == BACKWARD:
            raise
        cause = str(error) if type(error) is ValueError else first_line(error)
        raise ValueError(f"one device, which verify=true compares with, fails in its backward: {cause}") from error


def _backward(loss: torch.Tensor) -> None:
    before = generators()
    loss.backward()
    if generators_moved_since(before):
        raise ValueError(BACKWARD)
