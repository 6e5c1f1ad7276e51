"""What a caller may give as data, as the one thing that a run takes: a function from a step to its batch.

(x, y)                       the same batch in every step
DataLoader, list of pairs    one batch a step, from the beginning again when they are used up
lambda step: (x, y)          made when it is needed
x: a tensor, a tuple of tensors, or a dict of keyword inputs
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import Tensor

from pipezoo.data.batch import Batch
from pipezoo.errors import MISSING, ArgumentError
from pipezoo.runtime.trees import check_leaf, flatten, map_tensors
from pipezoo.validators import check_int

FORMS = "a pair (input, target), an iterable of pairs, a pipezoo.Batch, or a function of the step that returns one"
STEPS = 10  # where nothing says how many


@dataclass(frozen=True)
class Listed:
    """Batches that are there already, over and over."""

    batches: Sequence[Batch]

    def __call__(self, step: int) -> Batch:
        return self.batches[step % len(self.batches)]


@dataclass(frozen=True)
class Made:
    """Batches that a function of the step makes."""

    make: Callable[[int], Any]

    def __call__(self, step: int) -> Batch:
        return as_batch(self.make(step), f"batch({step})")


@dataclass(frozen=True)
class Source:
    """A function of the step, the rows of each of its batches, and how many steps there are."""

    batch: Callable[[int], Batch]
    rows: int
    steps: int

    def __call__(self, batch_size: int, seed: int) -> Callable[[int], Batch]:
        """As a source of data in ``conf/data``; it has its size already."""
        return self.batch


def source_of(given: Any, steps: int | None) -> Source:
    """What the caller gave, made one function of the step.

    Args:
        given: one of ``FORMS``.
        steps: how many are wanted; None: as many as an iterable has batches, 10 where there is one batch alone.

    Raises:
        ArgumentError: it is none of the forms, has no batch, or batches of unequal numbers of rows.
    """
    batch: Listed | Made
    if steps is not None:
        check_int("steps", steps, 1)
    if isinstance(given, Batch) or _is_pair(given):
        batch = Listed([as_batch(given)])
        steps = STEPS if steps is None else steps
    elif isinstance(given, Iterable) and not isinstance(given, (Tensor, Mapping, str)):
        batch, steps = _listed(given, steps)
    elif callable(given):
        batch = Made(given)
        steps = STEPS if steps is None else steps
    else:
        raise ArgumentError("batch", MISSING, f"is {_kind(given)}", FORMS)
    return Source(batch, len(batch(0).target), steps)


def as_batch(given: Any, name: str = "batch") -> Batch:
    """A pair or a Batch as a Batch of tensors on the CPU that ask for no gradient. Raises ArgumentError."""
    if isinstance(given, Batch):
        args, kwargs, target = given
    elif _is_pair(given):
        inputs, target = given
        kwargs = dict(inputs) if isinstance(inputs, Mapping) else {}
        args = () if kwargs else (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    else:
        raise ArgumentError(name, MISSING, f"is {_kind(given)}", "a pair (input, target), where target is a tensor")
    if not isinstance(target, Tensor):
        raise ArgumentError(name, MISSING, f"holds {_kind(target)} as its target, which is a tensor")
    for value in (*flatten((args, kwargs))[0], target):
        try:
            check_leaf(value)
        except ValueError as error:
            raise ArgumentError(name, MISSING, f"holds an input that is none: {error}") from None
        if not isinstance(value, Tensor):
            continue
        if not value.dim() or len(value) != len(target):
            why = f"a tensor of shape {tuple(value.shape)} has not the {len(target)} rows of the target"
            raise ArgumentError(name, MISSING, why)
    args, kwargs = map_tensors(lambda tensor: tensor.detach().cpu(), (args, kwargs))
    return Batch(args, kwargs, target.detach().cpu())


def _is_pair(given: Any) -> bool:
    """A pair has a tensor as its target; a list of two pairs has not."""
    return isinstance(given, (tuple, list)) and len(given) == 2 and isinstance(given[1], Tensor)


def _listed(given: Iterable[Any], steps: int | None) -> tuple[Listed, int]:
    if steps is None:
        if not isinstance(given, Sized):
            raise ArgumentError("steps", None, "nothing says how many batches there are; give a number of steps")
        steps = len(given)
    batches = [as_batch(item, f"batch {number}") for number, item in enumerate(islice(given, steps))]
    if not batches:
        raise ArgumentError("batch", MISSING, "holds no batch", FORMS)
    for number, batch in enumerate(batches):
        if len(batch.target) != len(batches[0].target):
            why = f"has {len(batch.target)} rows, and batch 0 has {len(batches[0].target)}; a DataLoader drops such a "
            raise ArgumentError(f"batch {number}", MISSING, why + "last one with drop_last=True")
    return Listed(batches), steps


def _kind(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"of type {type(value).__name__}"
