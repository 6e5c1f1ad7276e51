"""One device that trains the shares of a batch one after the other, as replicas train them beside each other.

    g0 = all microbatches of share 0       g1 = those of share 1       gradient = g0 + g1, added up in this order

Each share adds up its own microbatches first, also those of several steps before an update.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class GradientsByShare:
    """The gradients of each share, by parameter. A batch of one share is left to autograd."""

    def __init__(self, model: nn.Module, num_shares: int) -> None:
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._num_shares = num_shares
        self._found: dict[tuple[int, int], torch.Tensor] = {}

    def begin(self) -> None:
        """Before the first gradient of an update."""
        self._found.clear()

    @contextmanager
    def of(self, share: int) -> Iterator[None]:
        """Gradients that come inside are of this share."""
        if self._num_shares == 1:
            yield
            return
        for place, parameter in enumerate(self._parameters):
            parameter.grad = self._found.get((share, place))
        yield
        for place, parameter in enumerate(self._parameters):
            if parameter.grad is not None:
                self._found[share, place] = parameter.grad

    def add_up(self) -> None:
        """Give each parameter its gradient of the whole batch; zeros stand for a share that did not use it."""
        if self._num_shares == 1:
            return
        for place, parameter in enumerate(self._parameters):
            keys = [(share, place) for share in range(self._num_shares)]
            parameter.grad = None
            if any(key in self._found for key in keys):
                gradient = self._found.get(keys[0], torch.zeros_like(parameter))
                for key in keys[1:]:
                    gradient = gradient + self._found.get(key, torch.zeros_like(parameter))
                parameter.grad = gradient
