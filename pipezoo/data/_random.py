"""Random numbers of a data set's own: what it draws changes no other random number, and does not hang on any."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


class OwnRandom:
    """The generators of torch (CPU), numpy and Python as they are for this data set alone.

    Args:
        numbers: what fixes them: a seed and an epoch or a step, all >= 0.
    """

    def __init__(self, *numbers: int) -> None:
        torchs, pythons = np.random.SeedSequence(numbers).generate_state(2, np.uint64)
        self._state = (
            torch.Generator().manual_seed(int(torchs)).get_state(),
            np.random.RandomState(np.random.MT19937(np.random.SeedSequence(numbers))).get_state(),
            random.Random(int(pythons)).getstate(),
        )

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Draw from these; afterwards the generators are what they were."""
        before = (torch.get_rng_state(), np.random.get_state(), random.getstate())
        _set(self._state)
        try:
            yield
        finally:
            self._state = (torch.get_rng_state(), np.random.get_state(), random.getstate())
            _set(before)


def _set(state: tuple[torch.Tensor, object, object]) -> None:
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])  # type: ignore[arg-type]
    random.setstate(state[2])  # type: ignore[arg-type]
