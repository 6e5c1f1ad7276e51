"""Nested values, flat and back: containers, data classes and what a model returns, whose leaves are all else.

(h, {"aux": a, "size": 3})   --flatten-->   [h, a, 3], a shape   --build-->   (h', {"aux": a', "size": 3})
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn


class Shape:
    """The containers of a nested value, without its leaves."""

    def __init__(self, frame: Any, inner: Sequence[tuple[Any, Shape]]) -> None:
        self.frame, self.inner = frame, tuple(inner)  # an inner shape by its key; a leaf has neither

    def build(self, leaves: Iterator[Any]) -> Any:
        """The containers once more, made anew, around other leaves."""
        if self.frame is None:
            return next(leaves)
        values = [(key, shape.build(leaves)) for key, shape in self.inner]
        if isinstance(self.frame, tuple):
            items = [value for _, value in values]
            return type(self.frame)(*items) if hasattr(self.frame, "_fields") else type(self.frame)(items)
        made = copy.copy(self.frame)
        for key, value in values:
            if isinstance(made, (Mapping, list)):
                made[key] = value  # type: ignore[index]
            else:
                object.__setattr__(made, key, value)
        return made

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Shape)
            and type(self.frame) is type(other.frame)
            and [key for key, _ in self.inner] == [key for key, _ in other.inner]
            and all(mine == theirs for (_, mine), (_, theirs) in zip(self.inner, other.inner, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]


def flatten(value: Any) -> tuple[list[Any], Shape]:
    """The leaves of a nested value in a fixed order, and its shape."""
    inner = _parts(value)
    if inner is None:
        return [value], Shape(None, ())
    leaves: list[Any] = []
    shapes = []
    for key, item in inner:
        own, shape = flatten(item)
        leaves += own
        shapes.append((key, shape))
    return leaves, Shape(_emptied(value), shapes)


def build(shape: Shape, leaves: Sequence[Any]) -> Any:
    return shape.build(iter(leaves))


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """``value`` with ``function`` of each of its tensors in the tensor's place."""
    leaves, shape = flatten(value)
    return build(shape, [function(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves])


def tensors_in(value: Any, depth: int = 6) -> Iterator[Tensor]:
    """The tensors in nested containers, and in the attributes of objects that are no modules, such as a cache."""
    if isinstance(value, Tensor):
        yield value
    elif depth and not isinstance(value, (nn.Module, type, str, bytes)):
        inner: Any = ()
        if isinstance(value, Mapping):
            inner = value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            inner = value
        elif hasattr(value, "__dict__") and not callable(value):
            inner = vars(value).values()
        for item in list(inner):
            yield from tensors_in(item, depth - 1)


def _parts(value: Any) -> list[tuple[Any, Any]] | None:
    """What is in a container, by key; None for a leaf."""
    if isinstance(value, Mapping) and hasattr(value, "__setitem__"):
        return list(value.items())
    if isinstance(value, (list, tuple)) and not isinstance(value, _SIZES):
        return list(enumerate(value))
    if is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    return None


def _emptied(value: Any) -> Any:
    """A container with nothing alive in it."""
    if isinstance(value, tuple):
        nothing: list[Any] = [None] * len(value)
        return type(value)(*nothing) if hasattr(value, "_fields") else type(value)(nothing)
    made = copy.copy(value)
    for key, _ in _parts(value) or ():
        if isinstance(made, (Mapping, list)):
            made[key] = None  # type: ignore[index]
        else:
            object.__setattr__(made, key, None)
    return made


_SIZES: Any = type(Tensor([]).shape)
