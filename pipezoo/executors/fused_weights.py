"""The weight gradient of a large linear layer, added to ``.grad`` by the product itself.

    autograd    t = dy' x     W.grad = W.grad + t      t is as large as the weight, made and read once
    here        W.grad = W.grad + dy' x                one product that begins with what is there (BLAS: beta = 1)

A whole backward does so, and W of ``deferred_weights.py``. The first microbatch of an update has nothing to add to, and
leaves its product to autograd.

The bits stay those of autograd, or it is not done: a product over more rows than BLAS takes at once adds in another
order. So each shape is tried before its first use. Left to autograd are a weight that a forward uses twice, or outside
of its layer, whose shares are added up first; one with hooks; and what is recomputed under reentrant checkpointing.

Megatron-LM calls this gradient accumulation fusion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import Node
from torch.nn import functional as F

from pipezoo.executors.layers import have_layers_call
from pipezoo.runtime.autograd_engine import is_transformed, run_backward
from pipezoo.runtime.hooks import has_hooks

LARGE = 2**17  # values of a weight, from which on a call of Python more is made up for
MADE = "fused_weights"  # an attribute of the modules of a stage
NAME = "_FusedLinearBackward"  # of its nodes in the graph


class FusedWeights:
    """The large linear layers of one stage.

    Args:
        module: the stage. Its layers run their part of the backward here from now on.
        looks: how many graphs are looked at for other uses of their weights.
    """

    @classmethod
    def of(cls, module: nn.Module, looks: int) -> FusedWeights | None:
        """Those of this stage, which a rank may wire for several shapes of batches; None where it has none."""
        for layer in module.modules():
            if (made := vars(layer).get(MADE)) is not None:
                return made  # type: ignore[no-any-return]
        large = any(parameter.dim() == 2 and parameter.numel() >= LARGE for parameter in module.parameters())
        return cls(module, looks) if large else None

    def __init__(self, module: nn.Module, looks: int) -> None:
        for _ in have_layers_call(module, self._layer, [F.linear]):
            pass
        for layer in module.modules():
            vars(layer)[MADE] = self
        self._looks, self._in_forward, self._adds = looks, False, False
        self._used: set[int] = set()
        self._left: set[int] = set()  # weights whose gradient is autograd's to add

    def begin_forward(self) -> None:
        """A microbatch comes."""
        self._used.clear()
        self._in_forward = True

    def end_forward(self, ends: Iterable[torch.Tensor]) -> None:
        """It is through. The first graphs are looked at: which weights are used outside of their layer?"""
        self._in_forward = False
        if self._looks:
            self._looks -= 1
            self._left |= used_elsewhere(ends)

    def backward(self, ends: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None]) -> None:
        """As ``run_backward``. Only here are gradients added: a forward may ask autograd for some of its own."""
        self._adds = True
        try:
            run_backward(ends, gradients)
        finally:
            self._adds = False

    def adds_for(self, weight: torch.Tensor) -> bool:
        """Whether the product of this weight goes to its ``.grad`` now."""
        return self._adds and id(weight) not in self._left

    def _layer(
        self,
        function: Callable[..., torch.Tensor],
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if (
            not torch.is_grad_enabled()
            or not weight.requires_grad
            or not is_plain(x, weight)
            or has_hooks(weight)
            or not fits(weight, x.numel() // x.shape[-1])
        ):
            return function(x, weight, bias)
        if self._in_forward:
            (self._left if id(weight) in self._used else self._used).add(id(weight))
        stage = self if self._in_forward else None
        output: torch.Tensor = _FusedLinear.apply(x, weight, bias, stage)  # type: ignore[no-untyped-call]
        return output


class _FusedLinear(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stage: FusedWeights | None
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stage = stage
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        of_input, _, of_bias, _ = ctx.needs_input_grad
        rows, flat = (dy, x) if dy.dim() == 2 else (dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1]))
        adds = ctx.stage is not None and ctx.stage.adds_for(weight) and add_product(weight, rows, flat)
        dx = rows.mm(weight).view(x.shape) if of_input else None
        return dx, None if adds else rows.t().mm(flat), rows.sum(0) if of_bias else None, None


def add_product(weight: torch.Tensor, dy: torch.Tensor, x: torch.Tensor) -> bool:
    """``weight.grad += dy' x`` at once. False: nothing was done, since it does not pay, or would have other bits.

    Args:
        dy, x: ``[rows, out]`` and ``[rows, in]``.
    """
    before = weight.grad
    if before is None or not (before.is_contiguous() and dy.is_contiguous()) or before.dtype != dy.dtype:
        return False
    if not fits(weight, len(dy)):
        return False
    with torch.no_grad():
        before.addmm_(dy.t(), x)
    return True


def fits(weight: torch.Tensor, rows: int) -> bool:
    """Whether it pays for this weight, and a product over so many rows has the bits of autograd."""
    return weight.numel() >= LARGE and _keeps_bits(rows, *weight.shape, weight.dtype, weight.device)


def is_plain(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether autograd's product is ``dy' x`` over contiguous rows."""
    return (
        type(weight) is nn.Parameter
        and type(x) is torch.Tensor
        and x.dim() > 1
        and x.dtype == weight.dtype
        and x.is_contiguous()
        and weight.is_contiguous()
        and x.numel() > 0
        and not torch.is_autocast_enabled(x.device.type)
        and not is_transformed()
    )


@cache
def _keeps_bits(rows: int, out: int, into: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a product of this shape that is added at once has the bits of one that is made first.

    It takes as much memory as a gradient and a product, which a backward would take. The numbers it is tried with are
    no random ones: nothing else may draw others for it.
    """
    with torch.no_grad():
        dy, x, added = (
            torch.arange(height * width, dtype=dtype, device=device).mul_(step).sin_().view(height, width)
            for height, width, step in ((rows, out, 0.7), (rows, into, 1.3), (out, into, 2.9))
        )
        made = dy.t().mm(x).add_(added)
        return torch.equal(made, added.addmm_(dy.t(), x))


def used_elsewhere(ends: Iterable[torch.Tensor]) -> set[int]:
    """The ``id`` of every leaf that a node leads to which is none of this file's."""
    found: set[int] = set()
    waiting: list[Node] = [end.grad_fn for end in ends if end.grad_fn is not None]
    seen: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for child, _ in node.next_functions:
            if child is None:
                continue
            if hasattr(child, "variable") and node.name() != NAME:
                found.add(id(child.variable))
            waiting.append(child)
    return found
