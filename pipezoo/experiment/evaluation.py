"""When a training is evaluated on held-out batches, on which, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipezoo.errors import ArgumentError
from pipezoo.validators import check_bool, check_int, check_number, check_word

WEIGHTS = ("model", "ema")


@dataclass(frozen=True)
class EvalOptions:
    """``eval=held_out``.

    Args:
        every: steps between two evaluations; None: none.
        batches: how many; None: all where the data have a length, else 4.
        data: arguments of the source of data that differ for held-out batches; None: none.
        best: whether the checkpoint with the lowest loss is kept beside the latest.
        patience: evaluations without a lower loss after which the training ends; None: it goes on.
        min_delta: how much lower a loss must be to count as lower.
        weights: what is evaluated: the ``model`` as it is, or the moving average of its parameters (``ema``).

    Raises:
        ArgumentError: a value out of range.
    """

    every: int | None = None
    batches: int | None = None
    data: Mapping[str, Any] | None = None
    best: bool = False
    patience: int | None = None
    min_delta: float = 0.0
    weights: str = "model"

    def __post_init__(self) -> None:
        for name in ("every", "batches", "patience"):
            if (value := getattr(self, name)) is not None:
                check_int(name, value, 1)
        check_bool("best", self.best)
        check_number("min_delta", self.min_delta)
        check_word("weights", self.weights, WEIGHTS)
        if self.every is None:
            for name, off in (("best", False), ("patience", None), ("weights", "model")):
                if getattr(self, name) != off:
                    raise ArgumentError(name, getattr(self, name), "nothing is evaluated", "eval.every=100 as well")


@dataclass
class History:
    """What evaluations came to so far, the same on every rank.

    ``best``: the lowest loss, and the number of steps behind it; infinite, 0 where there is none.
    ``waited``: evaluations since then.
    """

    options: EvalOptions
    best: tuple[float, int] = (float("inf"), 0)
    waited: int = 0

    def hear(self, steps: int, loss: float) -> bool:
        """Whether this loss, after so many steps, is the lowest. One that is no number never is."""
        if loss < self.best[0] - (self.options.min_delta if self.best[1] else 0.0):
            self.best, self.waited = (loss, steps), 0
            return True
        self.waited += 1
        return False

    @property
    def ends(self) -> bool:
        """Whether the training has waited long enough."""
        return self.options.patience is not None and self.waited >= self.options.patience
