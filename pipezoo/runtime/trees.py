"""What crosses between stages, taken apart and put together: containers of tensors and plain values, nested at will.

    {"h": x, "sizes": (4, None)}     leaves [x, 4, None]     structure  dict h, sizes ► ·, tuple ► ·, ·

Containers are what torch knows as pytrees (dict, list, tuple, named tuples, whatever a library registers, as
transformers does with its outputs), dataclasses, and classes derived from dict. All else is a leaf.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

import torch
from torch.utils import _pytree

PLAIN = (
    *(bool, int, float, complex, str, bytes, Enum, range, slice, type(None), type(Ellipsis)),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size),
)


@dataclasses.dataclass(frozen=True)
class Structure:
    """How leaves are nested. Equal structures put equal leaves into equal values.

    Args:
        kind: the container's type; None for a leaf.
        context: what its type does not say: keys, names of fields.
        children: of a container, in order.
        build: from the children's values to the container.
    """

    kind: type | None = None
    context: Any = None
    children: tuple[Structure, ...] = ()
    build: Callable[[list[Any]], Any] = dataclasses.field(default=lambda values: values[0], compare=False)

    def rebuild(self, leaves: Iterable[Any]) -> Any:
        """The value with these leaves, in the order of :func:`flatten`."""
        return self._rebuild(iter(leaves))

    def _rebuild(self, leaves: Any) -> Any:
        if self.kind is None:
            return next(leaves)
        return self.build([child._rebuild(leaves) for child in self.children])


LEAF = Structure()


def flatten(value: Any) -> tuple[list[Any], Structure]:
    """The leaves of a value from left to right, and how they are nested."""
    parts = _opened(value)
    if parts is None:
        return [value], LEAF
    values, context, build = parts
    leaves, children = [], []
    for part in values:
        inner, structure = flatten(part)
        leaves += inner
        children.append(structure)
    return leaves, Structure(type(value), context, tuple(children), build)


def tensors_of(value: Any) -> list[torch.Tensor]:
    """The tensors in a value, from left to right."""
    return [leaf for leaf in flatten(value)[0] if isinstance(leaf, torch.Tensor)]


def map_tensors(change: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """The same value with other tensors."""
    leaves, structure = flatten(value)
    return structure.rebuild([change(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves])


def check_leaf(leaf: Any) -> None:
    """Raises ValueError for a leaf that cannot cross, since it is neither a tensor nor a plain value."""
    if not isinstance(leaf, (torch.Tensor, *PLAIN)):
        raise ValueError(
            f"{type(leaf).__name__} is no tensor, no plain value and no container of them; valid: a dict, a dataclass, "
            "or a class that is registered as a pytree"
        )


def same_plain(one: Any, other: Any) -> bool:
    """Whether two plain values are equal, in their type too."""
    return type(one) is type(other) and (one is other or bool(one == other))


def _opened(value: Any) -> tuple[Sequence[Any], Any, Callable[[list[Any]], Any]] | None:
    """The parts of a container, what its type does not say, and how it is made of them; None for a leaf.

    torch's own ``tree_flatten`` leaves circles of references behind: tensors would live until Python looks for them.
    """
    kind = type(value)
    if value is None or isinstance(value, (torch.Tensor, torch.Size)):
        return None
    if kind in (tuple, list):
        return value, None, kind
    if kind is dict:
        keys = tuple(value)
        return list(value.values()), keys, lambda values: dict(zip(keys, values, strict=True))
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return value, None, lambda values: kind(*values)
    if isinstance(value, tuple) and hasattr(kind, "n_sequence_fields"):  # of torch, like that of torch.max
        return value, None, kind
    if (node := _pytree.SUPPORTED_NODES.get(kind)) is not None:
        parts, context = node.flatten_fn(value)
        return parts, context, lambda values: node.unflatten_fn(values, context)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = tuple(field.name for field in dataclasses.fields(value) if hasattr(value, field.name))
        return [getattr(value, name) for name in names], names, lambda values: _with_fields(kind, names, values)
    if isinstance(value, dict):
        keys = tuple(value)
        return list(value.values()), keys, lambda values: _with_items(kind, keys, values)
    return None


def _with_fields(kind: type, names: Sequence[str], values: Sequence[Any]) -> Any:
    made: Any = object.__new__(kind)
    for name, value in zip(names, values, strict=True):
        object.__setattr__(made, name, value)
    return made


def _with_items(kind: type[dict[Any, Any]], keys: Sequence[Any], values: Sequence[Any]) -> Any:
    made = dict.__new__(kind)
    dict.update(made, zip(keys, values, strict=True))
    return made
