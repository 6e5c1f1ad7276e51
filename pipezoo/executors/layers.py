"""The layers of a stage whose products an executor does itself, and how it gets to do them.

A layer's own ``forward`` is put in place of its class's, so hooks of modules run as ever; in a traced graph, the node.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

Function = Callable[..., torch.Tensor]
LAYERS: dict[type[nn.Module], Function] = {
    nn.Linear: F.linear,
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
}
TRACED: dict[Any, Function] = {
    torch.ops.aten.linear.default: F.linear,
    torch.ops.aten.conv1d.default: F.conv1d,
    torch.ops.aten.conv2d.default: F.conv2d,
    torch.ops.aten.conv3d.default: F.conv3d,
}
FUNCTIONS = frozenset(LAYERS.values())


def have_layers_call(module: nn.Module, call: Function, functions: Collection[Function]) -> Iterator[torch.Tensor]:
    """Have each layer of a stage run ``call(function, x, weight, bias, ...)``; gives their weights.

    Args:
        functions: of which layers, a part of ``FUNCTIONS``.
    """
    for layer in module.modules():
        for graph_module in (layer, getattr(layer, "graph_module", None)):
            if isinstance(graph := getattr(graph_module, "graph", None), fx.Graph):
                _have_nodes_call(graph, call, functions)
                if isinstance(graph_module, fx.GraphModule):
                    graph_module.recompile()
        function = LAYERS.get(type(layer))
        if function is not None and function in functions and runs_its_class(layer):
            layer.forward = partial(_call_of_layer, layer, function, call)
            yield layer.weight  # type: ignore[misc]
        elif isinstance(getattr(layer, "graph", None), fx.Graph):
            yield from (weight for weight in layer.parameters(recurse=False) if weight.dim() > 1)


def runs_its_class(layer: nn.Module) -> bool:
    """Whether a layer does what its class in torch does: nobody gave it, or its class, a forward of their own."""
    own = {"forward", "_conv_forward"} & vars(layer).keys()
    code = getattr(type(layer).forward, "__code__", None)
    torchs = code is not None and code.co_filename == inspect.getfile(type(layer))
    return not own and torchs and getattr(layer, "padding_mode", "zeros") == "zeros"


def _call_of_layer(layer: Any, function: Function, call: Function, input: torch.Tensor) -> torch.Tensor:
    names = () if function is F.linear else ("stride", "padding", "dilation", "groups")
    return call(function, input, layer.weight, layer.bias, *(getattr(layer, name) for name in names))


def _have_nodes_call(graph: fx.Graph, call: Function, functions: Collection[Function]) -> None:
    for node in graph.nodes:
        if node.op == "call_function" and TRACED.get(node.target) in functions and not node.kwargs:
            function = TRACED[node.target]

            def traced(*args: Any, function: Function = function, **kwargs: Any) -> torch.Tensor:
                return call(function, *args, **kwargs)

            node.target = traced
