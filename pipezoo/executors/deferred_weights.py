"""W as a list of products: what a linear or convolutional layer needs for its weight gradient is kept by I.

    forward    y = x W' + b             x is kept, as autograd keeps it
    I          dx = dy W                and (x, dy) is put down
    W          dW += dy' x, db += sum dy     for all that was put down, in that order

The graph of a stage then leads to what arrived and to few parameters, so I is one backward without a second look at
the graph, and W none at all. The products are those of autograd, so the bits are, too. Vectors (norms, scales) and a
weight that a forward takes from its layer get their gradients in I, and W adds them up.

Autograd's own split (``split_backward.py``) does the rest of a stage with larger parameters, with hooks on parameters,
or with a layer that cannot put anything down: its input learns nothing or is not contiguous, or it runs under autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from pipezoo.executors.fused_weights import add_product, is_plain
from pipezoo.executors.layers import FUNCTIONS, have_layers_call
from pipezoo.executors.split_backward import input_gradient, weight_gradient
from pipezoo.runtime.autograd_engine import gradients_of
from pipezoo.runtime.hooks import has_hooks

MADE = "halves_of_backward"  # an attribute of the modules of a stage


class Deferred:
    """Both halves of the backward of one stage.

    Args:
        module: the stage. Its layers put down from now on what W needs.
    """

    @classmethod
    def of(cls, module: nn.Module) -> Deferred:
        """The one of this stage, which a rank may wire for several shapes of batches."""
        for layer in module.modules():
            if (made := vars(layer).get(MADE)) is not None:
                return made  # type: ignore[no-any-return]
        return cls(module)

    def __init__(self, module: nn.Module) -> None:
        self._put_down = Heap()
        weights = {id(weight) for weight in have_layers_call(module, self._layer, FUNCTIONS)}
        for layer in module.modules():
            vars(layer)[MADE] = self
        self._learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._splits = any(has_hooks(p) or (p.dim() > 1 and id(p) not in weights) for p in self._learning)

    def _layer(
        self,
        function: Callable[..., torch.Tensor],
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        *shape: Any,
    ) -> torch.Tensor:
        learns = weight.requires_grad, bias is not None and bias.requires_grad
        if not any(learns) or not torch.is_grad_enabled():
            return function(x, weight, bias, *shape)
        if not _can_put_down(x, weight, shape) or has_hooks(weight) or (bias is not None and has_hooks(bias)):
            self._splits = True
            return function(x, weight, bias, *shape)
        layer = Layer(function, weight, bias, shape, self._put_down)
        run: Any = _Linear if function is F.linear else _Convolution
        output: torch.Tensor = run.apply(x, weight.detach(), None if bias is None else bias.detach(), layer)
        return output

    def input_gradient(
        self,
        outputs: Sequence[torch.Tensor],
        gradients: Sequence[torch.Tensor | None],
        inputs: Sequence[torch.Tensor],
    ) -> tuple[list[torch.Tensor | None], list[Any]]:
        """I: the gradients of ``inputs``, and what is left for :meth:`weight_gradient`; as of ``split_backward``."""
        self._put_down.clear()
        if self._splits:
            with self._put_down.taking():
                found, later = input_gradient(outputs, gradients, inputs)
            return found, [later, self._taken(), []]
        with self._put_down.taking():
            both: Sequence[torch.Tensor | None] = gradients_of([*inputs, *self._learning], outputs, gradients)
        rest = [(p, g.clone()) for p, g in zip(self._learning, both[len(inputs) :], strict=True) if g is not None]
        return list(both[: len(inputs)]), [[], self._taken(), rest]

    def _taken(self) -> list[PutDown]:
        taken = [*self._put_down]
        self._put_down.clear()
        return taken

    def weight_gradient(self, later: list[Any]) -> None:
        """W: add the rest of a backward to ``.grad`` of the parameters."""
        pieces, put_down, rest = later
        later.clear()
        with self._put_down.taking():
            weight_gradient(pieces)  # which runs the layers that no input leads to
        put_down += self._taken()
        with torch.no_grad():
            if len({id(layer.weight) for layer, *_ in put_down}) < len(put_down):
                rest += _summed(put_down)
            else:
                for layer, x, dy in put_down:
                    layer.add(x, dy)
            for parameter, gradient in rest:
                _add(parameter, gradient)


class Layer(NamedTuple):
    """What a node of the graph knows of its layer."""

    function: Callable[..., torch.Tensor]
    weight: torch.Tensor
    bias: torch.Tensor | None
    shape: tuple[Any, ...]
    put_down: Heap

    def products(self, x: torch.Tensor, dy: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The gradients of its parameters."""
        weight, bias = self.weight, self.bias
        of_bias = bias is not None and bias.requires_grad
        if self.function is F.linear:
            if weight.requires_grad:
                yield weight, dy.t().mm(x)
            if bias is not None and of_bias:
                yield bias, dy.sum(0)
            return
        which = [False, weight.requires_grad, of_bias]
        _, dw, db = _convolution_backward(self, x, dy, weight.detach(), which)
        if dw is not None and weight.requires_grad:
            yield weight, dw
        if db is not None and bias is not None and of_bias:
            yield bias, db

    def add(self, x: torch.Tensor, dy: torch.Tensor) -> None:
        """Add them to ``.grad``."""
        if self.function is F.linear and self.weight.requires_grad and add_product(self.weight, dy, x):
            if self.bias is not None and self.bias.requires_grad:
                _add(self.bias, dy.sum(0))
            return
        for parameter, gradient in self.products(x, dy):
            _add(parameter, gradient)


class Heap(list["PutDown"]):
    """What was put down. It takes in I and W alone: a forward may ask autograd for gradients of its own."""

    takes = False

    @contextmanager
    def taking(self) -> Iterator[None]:
        self.takes = True
        try:
            yield
        finally:
            self.takes = False


PutDown = tuple[Layer, torch.Tensor, torch.Tensor]  # a layer, its input, and the gradient of its output


def _summed(put_down: Sequence[PutDown]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The gradients of layers of which one is used twice: autograd adds its shares before it adds them to ``.grad``."""
    sums: dict[torch.Tensor, torch.Tensor] = {}
    for layer, x, dy in put_down:
        for parameter, gradient in layer.products(x, dy):
            sums[parameter] = sums[parameter] + gradient if parameter in sums else gradient
    return list(sums.items())


def _add(parameter: torch.Tensor, gradient: torch.Tensor) -> None:
    if (before := parameter.grad) is None:
        parameter.grad = gradient
    else:
        before.add_(gradient)


def _can_put_down(x: torch.Tensor, weight: torch.Tensor, shape: tuple[Any, ...]) -> bool:
    """Whether autograd's products are those above."""
    return x.requires_grad and is_plain(x, weight) and not any(isinstance(value, str) for value in shape)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: Any, layer: Layer) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.layer = layer
        return F.linear(x, weight, bias).data  # no view, which nobody could change in place

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        rows, flat = (dy, x) if dy.dim() == 2 else (dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1]))
        _put_down(ctx, flat, rows)
        dx = rows.mm(weight)
        return dx if dy.dim() == 2 else dx.view(x.shape), None, None, None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: Any, layer: Layer) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.layer = layer
        return layer.function(x, weight, bias, *layer.shape).data

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        _put_down(ctx, x, dy)
        dx, _, _ = _convolution_backward(ctx.of, x, dy, weight, [True, False, False])
        return dx, None, None, None


def _put_down(ctx: Any, x: torch.Tensor, dy: torch.Tensor) -> None:
    """Once for each node, though W may walk the graph a second time.

    Raises:
        RuntimeError: what autograd would do with its gradient besides to add it cannot be done later.
    """
    ctx.of = layer = ctx.layer or ctx.of
    if torch.is_grad_enabled():
        raise _refused("a forward learns from a gradient that it asks for")
    if has_hooks(layer.weight):
        raise _refused("a hook came to a weight after its layer had run")
    if ctx.layer is not None and layer.put_down.takes:
        layer.put_down.append((layer, x, dy))
        ctx.layer = None


def _refused(why: str) -> RuntimeError:
    return RuntimeError(f"weight_grad=deferred: {why}; valid: weight_grad=autograd")


def _convolution_backward(
    layer: Layer, x: torch.Tensor, dy: torch.Tensor, weight: torch.Tensor, which: list[bool]
) -> tuple[torch.Tensor | None, ...]:
    size = weight.dim() - 2
    given = [*layer.shape, *[1, 0, 1, 1][len(layer.shape) :]]
    stride, padding, dilation = ([value] * size if isinstance(value, int) else list(value) for value in given[:3])
    sizes = None if layer.bias is None else list(layer.bias.shape)
    one = dy.dim() == size + 1  # one sample without its batch
    result = torch.ops.aten.convolution_backward(
        dy[None] if one else dy,
        x[None] if one else x,
        weight,
        sizes,
        stride,
        padding,
        dilation,
        False,
        [0] * size,
        given[3],
        which,
    )
    return (result[0][0] if one and result[0] is not None else result[0], *result[1:])
