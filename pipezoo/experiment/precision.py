"""In which dtypes a run computes: options of the group ``precision``.

             parameters   forward         gradients    what the optimizer moves
none         dtype        dtype           dtype        the parameters
bf16         float32      bf16 autocast   float32      the parameters
bf16_master  bfloat16     bfloat16        bfloat16     float32 copies of them
fp16         float32      fp16 autocast   float32      the parameters; losses are scaled
"""

from __future__ import annotations

from dataclasses import dataclass

from pipezoo.errors import ArgumentError
from pipezoo.validators import check_int, check_number


@dataclass(frozen=True)
class LossScaling:
    """Small gradients of float16 are kept from vanishing: losses are scaled up, gradients down again.

    A step with a gradient that is not finite moves nothing, on any rank.

    Args:
        start: the first scale.
        growth: what it is multiplied by after ``interval`` steps without an infinite gradient.
        backoff: what it is multiplied by after a step with one.

    Raises:
        ArgumentError: a value out of range.
    """

    start: float = 65536.0
    growth: float = 2.0
    backoff: float = 0.5
    interval: int = 2000

    def __post_init__(self) -> None:
        for name in ("start", "growth", "backoff"):
            object.__setattr__(self, name, check_number(name, getattr(self, name), above=True))
        if self.growth < 1:
            raise ArgumentError("growth", self.growth, "must not make the scale smaller", ">= 1")
        if self.backoff >= 1:
            raise ArgumentError("backoff", self.backoff, "must make the scale smaller", "in (0, 1)")
        if self.start > 2.0**127:
            raise ArgumentError("start", self.start, "is beyond float32", "<= 2**127")
        check_int("interval", self.interval, 1)


@dataclass(frozen=True)
class Precision:
    """What differs from computing everything in ``dtype``.

    Args:
        autocast: the dtype that torch computes matrix products in, its name; None: no autocast.
        parameters: the only ``dtype`` that it goes with; None: any.
        masters: whether the optimizer moves float32 copies of the parameters.
        scaling: of the losses, if they are scaled.
    """

    autocast: str | None = None
    parameters: str | None = None
    masters: bool = False
    scaling: LossScaling | None = None


def none() -> Precision:
    """Everything in ``dtype``."""
    return Precision()


def fp32() -> Precision:
    """Everything in float32."""
    return Precision(parameters="float32")


def bf16() -> Precision:
    """float32 parameters, and autocast to bfloat16."""
    return Precision(autocast="bfloat16", parameters="float32")


def bf16_master() -> Precision:
    """Everything in bfloat16, but the copies of the parameters that the optimizer moves."""
    return Precision(parameters="bfloat16", masters=True)


def fp16(start: float = 65536.0, growth: float = 2.0, backoff: float = 0.5, interval: int = 2000) -> Precision:
    """float32 parameters, autocast to float16, and scaled losses. Raises ArgumentError."""
    scaling = LossScaling(start, growth, backoff, interval)
    return Precision(autocast="float16", parameters="float32", scaling=scaling)
