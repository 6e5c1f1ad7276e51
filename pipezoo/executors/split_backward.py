"""A backward in two parts: the gradients of what a stage received now, those of its parameters later.

    received x ──► h = x W1 ──► y = relu(h) W2 ──► loss            the graph of one microbatch, walked backwards
                       │               │
    I                  ▼ grad h        ▼ grad y                    runs the nodes that lead to x, and keeps what reached
    W              W1.grad = x'grad h   W2.grad = ...              those with a parameter beside: from there W goes on

A parameter that no path from ``x`` shares a node with (a second tower, a positional table) belongs to W whole. Where
one parameter is used at several nodes, W walks the graph once more from its end, since shares alone count twice.

The idea of running a node twice, once for each of its two sides, is that of zero bubble pipelines (arXiv:2401.10241).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from pipezoo.runtime.autograd_engine import gradients_of, run_backward

Tensors = tuple[torch.Tensor, ...]


class Later(NamedTuple):
    """One piece of W: from ``edges``, which ``gradients`` have reached, to ``parameters``."""

    edges: list[GradientEdge]
    gradients: list[torch.Tensor]
    parameters: list[torch.Tensor]


def input_gradient(
    outputs: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None], inputs: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor | None], list[Later]]:
    """I: the gradients of ``inputs``, and what is left for W.

    Args:
        outputs: tensors of the graph's end that require a gradient.
        gradients: what arrived for each of them; None for a loss.
        inputs: leaves that require a gradient.

    Returns:
        A gradient for each input, None where none reaches it; the pieces of W, to be given to :func:`weight_gradient`.
    """
    ends = [get_gradient_edge(output) for output in outputs]
    arrived = [torch.ones_like(o) if g is None else g for o, g in zip(outputs, gradients, strict=True)]
    graph = _Graph(ends, [get_gradient_edge(tensor).node for tensor in inputs])
    pieces = graph.pieces()
    if pieces is None:  # a parameter at several nodes
        found = gradients_of(inputs, outputs, arrived, keeps_graph=True)
        return list(found), [Later(ends, arrived, graph.parameters())]
    own = {end: gradient for end, gradient in zip(ends, arrived, strict=True) if graph.is_beside(end)}
    kept = [edge for piece in pieces for edge in piece.edges if edge not in own]
    wanted: list[Any] = [*inputs, *kept]
    found = gradients_of(wanted, outputs, arrived, keeps_graph=True)
    reached = dict(zip(kept, found[len(inputs) :], strict=True)) | own  # one of these may lead to another
    later = []
    for piece in pieces:
        known = [(edge, reached[edge]) for edge in piece.edges if reached[edge] is not None]
        if known:
            later.append(Later([e for e, _ in known], [g for _, g in known], piece.parameters))  # type: ignore[misc]
    return list(found[: len(inputs)]), later


def weight_gradient(later: list[Later]) -> None:
    """W: add the rest of a backward to ``.grad`` of the parameters, and let go of its graph."""
    while later:
        piece = later.pop(0)
        run_backward(piece.edges, piece.gradients, piece.parameters)


def beside_every_input(outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The leaves behind those outputs that no input leads to."""
    graph = _Graph([get_gradient_edge(o) for o in outputs], [get_gradient_edge(tensor).node for tensor in inputs])
    return graph.beside()


class _Graph:
    """What lies behind ``ends``: which nodes lead to an input, which to a parameter."""

    def __init__(self, ends: Sequence[GradientEdge], inputs: Sequence[Node]) -> None:
        self._ends, self._inputs = ends, set(inputs)
        self._leads: dict[Node, bool] = {}
        self._seen: dict[Node, set[int]] = {}
        self._order: list[Node] = []
        for end in ends:
            self._seen.setdefault(end.node, set()).add(end.output_nr)
            self._walk(end.node)

    def _walk(self, start: Node) -> None:
        """Note each node behind ``start`` after all that is behind it."""
        stack = [(start, False)]
        while stack:
            node, done = stack.pop()
            if done:
                self._leads[node] = node in self._inputs or any(self._leads[n] for n, _ in _behind(node))
                self._order.append(node)
            elif node not in self._leads:
                self._leads[node] = False
                stack.append((node, True))
                for child, place in _behind(node):
                    self._seen.setdefault(child, set()).add(place)
                    if child not in self._leads:
                        stack.append((child, False))

    def is_beside(self, end: GradientEdge) -> bool:
        """Whether this end leads to no input, so that W begins with what arrived there."""
        return not self._leads[end.node]

    def parameters(self) -> list[torch.Tensor]:
        """Every leaf behind the ends that is no input."""
        return [node.variable for node in self._order if hasattr(node, "variable") and node not in self._inputs]  # type: ignore[attr-defined]

    def beside(self) -> list[torch.Tensor]:
        """Every leaf behind an end that leads to no input."""
        waiting = [end.node for end in self._ends if not self._leads[end.node]]
        seen: set[Node] = set()
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += [child for child, _ in _behind(node)]
        return [node.variable for node in seen if hasattr(node, "variable")]

    def pieces(self) -> list[Later] | None:
        """W in pieces, each without its gradients yet, in the order of a full backward; None where it cannot be cut."""
        owner: dict[Node, Node | None] = {}
        pieces: dict[Node | None, list[torch.Tensor]] = {}
        beside: list[tuple[Node | None, Node]] = [(None, end.node) for end in self._ends if not self._leads[end.node]]
        for node in reversed(self._order):
            if self._leads[node]:
                beside += [(node, child) for child, _ in _behind(node) if not self._leads[child]]
        for source, first in beside:
            waiting = [first]
            while waiting:
                node = waiting.pop()
                if node in owner:
                    if owner[node] is not source:
                        return None
                    continue
                owner[node] = source
                if hasattr(node, "variable"):
                    pieces.setdefault(source, []).append(node.variable)
                waiting += [child for child, _ in _behind(node)]
        roots = [end for end in self._ends if not self._leads[end.node]]
        return [
            Later(
                roots if source is None else [GradientEdge(source, place) for place in sorted(self._seen[source])],
                [],
                parameters,
            )
            for source, parameters in pieces.items()
        ]


def _behind(node: Node) -> list[tuple[Node, int]]:
    return [(child, place) for child, place in node.next_functions if child is not None]
