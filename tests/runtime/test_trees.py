"""Containers, taken apart and put together."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from pipezoo.runtime.trees import LEAF, check_leaf, flatten, map_tensors, same_plain, tensors_of

Point = namedtuple("Point", "x y")


@dataclass(frozen=True)
class Fields:
    x: Any
    y: Any = 3


class Named(dict):  # type: ignore[type-arg]
    """A dict that nobody registered."""


ONE, TWO = torch.ones(1), torch.zeros(2)
VALUES: list[Any] = [
    (ONE, TWO),
    [ONE, [TWO]],
    {"a": ONE, "b": {"c": TWO}},
    OrderedDict(a=ONE, b=TWO),
    defaultdict(list, a=ONE, b=TWO),
    deque([ONE, TWO]),
    Point(ONE, (TWO, 4)),
    Fields(ONE, Point(TWO, None)),
    Named(a=ONE, b=TWO),
    torch.return_types.max((ONE, TWO)),
    (ONE, torch.Size([3]), TWO),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_is_what_its_parts_make(value: Any) -> None:
    leaves, structure = flatten(value)
    again = structure.rebuild(leaves)
    assert type(again) is type(value)
    assert [tensor is other for tensor, other in zip(tensors_of(again), (ONE, TWO), strict=True)] == [True, True]
    assert flatten(again)[1] == structure
    doubled = map_tensors(lambda tensor: tensor * 2, value)
    assert type(doubled) is type(value)
    assert [tensor.shape for tensor in tensors_of(doubled)] == [(1,), (2,)]


def test_other_keys_types_and_depths_are_other_structures() -> None:
    kinds = [(1, 2), [1, 2], {"a": 1, "b": 2}, {"a": 1, "c": 2}, Point(1, 2), (1, (2,)), 1]
    structures = [flatten(value)[1] for value in kinds]
    assert all((a == b) == (i == j) for i, a in enumerate(structures) for j, b in enumerate(structures))
    assert structures[-1] == LEAF


@pytest.mark.parametrize("wrap", [lambda x: (x,), lambda x: {"x": [x]}, Fields, lambda x: OrderedDict(x=x)])
def test_no_tensor_outlives_its_last_name(wrap: Any) -> None:
    tensor = torch.ones(3)
    seen = weakref.ref(tensor)
    gc.disable()
    try:
        leaves, structure = flatten(wrap(tensor))
        rebuilt = structure.rebuild(leaves)
        del tensor, leaves, rebuilt
        assert seen() is None
    finally:
        gc.enable()


def test_plain_values_are_equal_in_their_type_too() -> None:
    assert same_plain(1, 1)
    assert not same_plain(1, True)
    assert not same_plain(1, 1.0)
    check_leaf("word")
    with pytest.raises(ValueError, match="object is no tensor, no plain value and no container of them"):
        check_leaf(object())
