"""The arithmetic of one training step that the pipeline and its reference share, so that they cannot differ in it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from pipezoo.errors import ArgumentError
from pipezoo.losses.auxiliary import auxiliary_counts
from pipezoo.runtime.judged import parts_of
from pipezoo.runtime.trees import tensors_of

Tensors = tuple[torch.Tensor, ...]
LossFunction = Callable[[Any, torch.Tensor], torch.Tensor]


class ScaledLoss:
    """The loss of one microbatch such that the sum over all is the loss of the batch.

        sum                                   counts whole
        mean over the rows                    counts 1 / num_microbatches: microbatches are equal slices
        mean over what counts (padding)       counts (what counts in it) / (what counts in the batch)

    What counts, a loss says by ``count(target)``, or by ``ignore_index`` as those of torch do. It is given the
    inputs by name that it takes, too.

    Args:
        loss: of a batch, with its ``reduction``.
        num_microbatches: of a batch.

    Raises:
        ValueError: the loss has no ``reduction``, or one that is not ``mean`` or ``sum``.
    """

    def __init__(self, loss: nn.Module, num_microbatches: int) -> None:
        reduction = getattr(loss, "reduction", None)
        if reduction not in ("mean", "sum"):
            raise ArgumentError("reduction", reduction, "the loss must say how it reduces a batch", "mean, sum")
        self._loss, self._num_microbatches = loss, num_microbatches
        self.is_mean = reduction == "mean"
        self._count = count_of(loss) if self.is_mean else None
        self._in_batch: float | None = None

    @property
    def auxiliary_scale(self) -> float:
        """What an auxiliary loss of one microbatch counts."""
        return 1 / self._num_microbatches if self.is_mean else 1.0

    @contextmanager
    def batch(self, target: Any, factor: float = 1.0) -> Iterator[None]:
        """The microbatches inside are of this batch; None: they are on another rank.

        Args:
            factor: what the gradients of all losses are multiplied by.
        """
        if self._count is not None and target is not None:
            self._in_batch = float(self._count(target))
        with auxiliary_counts(self.auxiliary_scale * factor):
            yield
        self._in_batch = None

    def __call__(self, output: Any, target: Any) -> torch.Tensor:
        """
        Args:
            output: what the model returns; a tuple of one tensor is that tensor.
            target: a tensor, or a :class:`~pipezoo.runtime.judged.Judged`.
        """
        if isinstance(output, tuple) and len(output) == 1:
            output = output[0]
        if not self.is_mean:
            return self._loss(output, target)  # type: ignore[no-any-return]
        if self._count is None:
            return self._loss(output, target) / self._num_microbatches  # type: ignore[no-any-return]
        counted = float(self._count(target))
        if not counted:  # a mean over nothing is not a number, and adds nothing
            return next(tensor for tensor in tensors_of(output) if tensor.requires_grad).sum() * 0.0
        in_batch = counted * self._num_microbatches if self._in_batch is None else self._in_batch
        if counted * self._num_microbatches == in_batch:
            return self._loss(output, target) / self._num_microbatches  # type: ignore[no-any-return]
        return self._loss(output, target) * (counted / in_batch)  # type: ignore[no-any-return]


def count_of(loss: nn.Module) -> Callable[[Any], Any] | None:
    """What tells from a target how much of it a mean is over; None where that hangs on its shape alone."""
    if callable(own := getattr(loss, "count", None)):
        return partial(_own_count, own)
    ignored, weight = getattr(loss, "ignore_index", None), getattr(loss, "weight", None)
    if not isinstance(ignored, int):
        return None

    def counted(judged: Any) -> Any:
        target, _ = parts_of(judged)
        if not isinstance(target, torch.Tensor):
            kind = type(loss).__name__
            raise ArgumentError(
                "ignore_index", ignored, f"{kind} does not say how much of several targets counts", "a method count"
            )
        if target.is_floating_point():  # of each class a share: nothing is ignored
            return len(target)
        valid = target != ignored
        return valid.sum() if weight is None else weight[target[valid]].sum()

    return counted


def _own_count(count: Callable[..., Any], judged: Any) -> Any:
    """A loss's own method, given the inputs that it takes besides the target."""
    target, inputs = parts_of(judged)
    parameters = inspect.signature(count).parameters if inputs else {}
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return count(target, **{name: value for name, value in inputs.items() if anything or name in parameters})


def scaled(loss: nn.Module, num_microbatches: int) -> ScaledLoss:
    """The loss of one microbatch such that the sum over all is the loss of the batch. Raises ValueError."""
    return ScaledLoss(loss, num_microbatches)


def microbatches(tensors: Sequence[torch.Tensor], num_microbatches: int) -> list[Tensors]:
    """Equal slices of rows, views of the batch: ``[num_microbatches]`` tuples."""
    for tensor in tensors:
        if tensor.shape[0] % num_microbatches:
            raise ValueError(f"{tensor.shape[0]} rows cannot be cut into {num_microbatches} equal microbatches")
    return list(zip(*(torch.tensor_split(tensor, num_microbatches) for tensor in tensors), strict=True))


def of_batch(shares: Sequence[Sequence[float]]) -> list[float]:
    """The losses of all shares of a batch, one behind the other, and last the sum of their totals.

    Args:
        shares: ``[num_shares][num_microbatches + 1]``: losses of the microbatches and last their total.
    """
    if len(shares) == 1:
        return [*shares[0]]
    return [loss for share in shares for loss in share[:-1]] + [sum(share[-1] for share in shares)]


def total(terms: Sequence[torch.Tensor]) -> torch.Tensor:
    """Their sum, in their order: of the microbatches' scaled losses, or of the shares of a tied gradient."""
    result = terms[0]
    for term in terms[1:]:
        result = result + term
    return result
