"""The weight gradient of a large linear layer, added to ``.grad`` by the product itself.

    autograd    t = dy' x     W.grad = W.grad + t      t is as large as the weight, made and read once
    here        W.grad = W.grad + dy' x                one product that begins with what is there (BLAS: beta = 1)

A whole backward does so, and W of ``deferred_weights.py``. The first microbatch of an update has nothing to add to, and
leaves its product to autograd.

The bits stay those of autograd, or it is not done: a product over more rows than BLAS takes at once adds in another
order. So each shape is tried before its first use. After each forward its graph is walked: a weight to which a second
way leads (a layer used twice, a penalty) has its shares added up first, by autograd. So does what the walk does not
reach, as another graph inside of a node, and a weight with hooks.

Megatron-LM calls this gradient accumulation fusion.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node, get_gradient_edge
from torch.nn import functional as F

from pipezoo.executors.layers import have_layers_call
from pipezoo.runtime.autograd_engine import is_transformed
from pipezoo.runtime.hooks import has_hooks

LARGE = 2**18  # values of a weight, from which on a call of Python more (about 40 us) is made up for
MADE = "fused_weights"  # an attribute of the modules of a stage
NAME = "_FusedLinearBackward"  # of its nodes in the graph
WEIGHT = 1  # its place among what such a node leads to


class FusedWeights:
    """The large linear layers of one stage.

    Args:
        module: the stage. Its layers run their part of the backward here from now on.
    """

    @classmethod
    def of(cls, module: nn.Module) -> FusedWeights | None:
        """Those of this stage, which a rank may wire for several shapes of batches; None where it has none."""
        for layer in module.modules():
            if (made := vars(layer).get(MADE)) is not None:
                return made  # type: ignore[no-any-return]
        large = any(parameter.dim() == 2 and parameter.numel() >= LARGE for parameter in module.parameters())
        return cls(module) if large else None

    def __init__(self, module: nn.Module) -> None:
        for _ in have_layers_call(module, _fused, [F.linear]):
            pass
        for layer in module.modules():
            vars(layer)[MADE] = self

    def allow(self, ends: Iterable[torch.Tensor]) -> None:
        """A forward is through: let those layers of its graph add their products that alone lead to their weights."""
        for node in only_ways_to_weights(ends):
            node.adds = True  # type: ignore[attr-defined]


def _fused(
    function: Callable[..., torch.Tensor], x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    if (
        not torch.is_grad_enabled()
        or not weight.requires_grad
        or not is_plain(x, weight)
        or not fits(weight, x.numel() // x.shape[-1])
    ):
        return function(x, weight, bias)
    output: torch.Tensor = _FusedLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return output


class _FusedLinear(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.adds = False
        return F.linear(x, weight, bias).data  # no view, which nobody could change in place

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        of_input, _, of_bias = ctx.needs_input_grad
        rows, flat = (dy, x) if dy.dim() == 2 else (dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1]))
        adds = ctx.adds and not has_hooks(weight) and add_product(weight, rows, flat)
        dx = rows.mm(weight).view(x.shape) if of_input else None
        return dx, None if adds else rows.t().mm(flat), rows.sum(0) if of_bias else None


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


def only_ways_to_weights(ends: Iterable[torch.Tensor]) -> list[Node]:
    """The nodes of this file in a graph to whose weights nothing else in it leads, and that nobody has a hand in."""
    return [node for node, uses, held in _ways_to_weights(ends) if uses == 1 and held == _held_by_the_walk()]


def _ways_to_weights(ends: Iterable[torch.Tensor]) -> list[tuple[Node, int, int]]:
    """Each node of this file, the ways to its weight, and the references to the node that adds to its ``.grad``."""
    uses, ours = _walk(ends)
    return [(node, uses[leaf], sys.getrefcount(leaf)) for node in ours for leaf, _ in [node.next_functions[WEIGHT]]]  # type: ignore[index, misc]


def _walk(ends: Iterable[torch.Tensor]) -> tuple[dict[Node, int], list[Node]]:
    """How many ways lead to each node of a graph, and which are of this file."""
    waiting: list[Node] = [end.grad_fn or get_gradient_edge(end).node for end in ends if end.requires_grad]
    uses: dict[Node, int] = dict.fromkeys(waiting, 1)
    if len(uses) < len(waiting):
        uses = dict(Counter(waiting))
    ours: list[Node] = []
    while waiting:
        node = waiting.pop()
        for child, _ in node.next_functions:
            if child is None:
                continue
            if child in uses:
                uses[child] += 1
            else:
                uses[child] = 1
                waiting.append(child)
        if isinstance(node, BackwardCFunction) and node.name() == NAME:
            ours.append(node)
    return uses, ours


@cache
def _held_by_the_walk() -> int:
    """One more reference, and somebody keeps the node: hooks on it are not to be seen, and live as long as it does."""
    output = _FusedLinear.apply(torch.ones(1, 1), nn.Parameter(torch.ones(1, 1)), None)  # type: ignore[no-untyped-call]
    return _ways_to_weights([output])[0][2]
