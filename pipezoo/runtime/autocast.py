"""Forwards under torch's autocast: each stage on its own, as one device has the whole model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipezoo.errors import ArgumentError
from pipezoo.experiment.precision import Precision


@dataclass(frozen=True)
class Autocast:
    """``with autocast():`` around a forward and its loss, never around a backward.

    Args:
        device: the type of device.
        dtype: what matrix products are computed in; None: in that of their arguments.
    """

    device: str = "cpu"
    dtype: torch.dtype | None = None

    @classmethod
    def of(cls, precision: Precision, device: str) -> Autocast:
        return cls(device, None if precision.autocast is None else getattr(torch, precision.autocast))

    def __call__(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.dtype is None else torch.autocast(self.device, self.dtype)

    def module(self, module: nn.Module) -> nn.Module:
        """A stage whose forward runs so."""
        return module if self.dtype is None else CastingStage(module, self)

    def loss(self, loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """A loss that is computed so."""
        if self.dtype is None:
            return loss

        def cast(*values: Any) -> torch.Tensor:
            with self():
                return loss(*values)

        return cast

    def check(self, choice: str) -> None:
        """Refuse a dtype that the device cannot multiply in. Raises ArgumentError."""
        if self.dtype is None:
            return
        try:
            if self.device == "cuda" and self.dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported():
                raise RuntimeError("no bfloat16")
            if self.device == "cpu":
                with self():
                    (torch.ones(2, 2) @ torch.ones(2, 2)).sum()
        except RuntimeError as error:
            raise ArgumentError(
                "precision", choice, f"device={self.device} does not compute in {str(self.dtype)[6:]}", "none, fp32"
            ) from error


class CastingStage(nn.Module):
    """A stage under autocast. Casts of its weights are kept for one forward, as on one device."""

    def __init__(self, module: nn.Module, autocast: Autocast) -> None:
        super().__init__()
        self.module, self._autocast = module, autocast

    def forward(self, *values: torch.Tensor) -> Any:
        with self._autocast():
            return self.module(*values)
