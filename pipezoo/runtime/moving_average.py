"""The exponential moving average of what an optimizer moves, kept by each rank for its own parameters.

after the first update    average = value
after each other one      average = decay * average + (1 - decay) * value
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from pipezoo.runtime.optimizer_state import copied
from pipezoo.runtime.whole import part_of


class MovingAverage:
    """Averages by name.

    Args:
        decay: share that is kept in each update.
        values: what is averaged; read anew in each update.
    """

    def __init__(self, decay: float, values: Mapping[str, torch.Tensor]) -> None:
        self._decay, self._values = decay, values
        self.averages: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the values as they are now."""
        if not self.averages:
            self.averages = {name: value.detach().clone() for name, value in self._values.items()}
            return
        for name, average in self.averages.items():
            average.lerp_(self._values[name], 1 - self._decay)

    @contextmanager
    def in_place_of(self, parameters: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Inside, the parameters have the averages as their values; nothing is copied, but for another dtype."""
        held = {name: parameters[name].data for name in self.averages}
        try:
            for name, values in held.items():
                parameters[name].data = self.averages[name].to(values.dtype)
            yield
        finally:
            for name, values in held.items():
                parameters[name].data = values

    def capture(self) -> dict[str, torch.Tensor]:
        return {name: copied(average, self._values[name]) for name, average in self.averages.items()}

    def restore(self, averages: Mapping[str, torch.Tensor]) -> None:
        """Those of the own parameters, of the averages of all."""
        self.averages = {
            name: part_of(averages[name], value) for name, value in self._values.items() if name in averages
        }
