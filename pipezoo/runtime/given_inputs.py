"""A model that takes more than tensors by position, as one that takes tensors alone: what is plain is always the same.

    forward(ids, mask=None, *, scale)        data   ids, None, scale=0.5
    as it is called from now on              forward(ids)           and so by splitters, stages and the reference

None, numbers and texts are those of the first batch, which all others must have. Dicts and other containers of tensors
are taken apart, and put together again for the model's own forward.
"""

from __future__ import annotations

import copy
import inspect
from types import CodeType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from pipezoo.data.batch import Batch
from pipezoo.runtime.trees import Structure, check_leaf, flatten, same_plain


class GivenInputs:
    """Stands in the place of a model's ``forward``, and takes the tensors of its inputs.

    Args:
        forward: the model's own.
        structure, leaves: of its inputs, positional and by keyword, as the first batch has them.
    """

    def __init__(self, forward: Any, structure: Structure, leaves: list[Any]) -> None:
        self.own, self._structure = forward, structure
        self._plain = {i: leaf for i, leaf in enumerate(leaves) if not isinstance(leaf, torch.Tensor)}
        self._size = len(leaves)

    def __deepcopy__(self, memo: dict[int, Any]) -> GivenInputs:
        """For a copy of the model: its own forward, the same inputs."""
        twin = copy.copy(self)
        twin.own = copy.deepcopy(self.own, memo)
        return twin

    @property
    def __code__(self) -> CodeType:
        """For torch.export, which looks for what a forward is written in."""
        return GivenInputs.__call__.__code__

    def __call__(self, *tensors: torch.Tensor) -> Any:
        left = iter(tensors)
        args, kwargs = self._structure.rebuild(
            [self._plain[i] if i in self._plain else next(left) for i in range(self._size)]
        )
        return self.own(*args, **kwargs)

    def check(self, structure: Structure, leaves: list[Any]) -> None:
        """Raises ValueError for inputs that are not those of the first batch but for their tensors."""
        if structure != self._structure:
            raise ValueError("its inputs are nested in another way than those of the first batch")
        for place, value in self._plain.items():
            if not same_plain(leaves[place], value):
                raise ValueError(
                    f"an input is {leaves[place]!r}, and was {value!r} in the first batch; valid: tensors, "
                    "or the same value in every step"
                )


_signatures: WeakKeyDictionary[Any, inspect.Signature] = WeakKeyDictionary()


def _signature(forward: Any) -> inspect.Signature:
    """What a forward takes. Every step asks; that of a method is looked up once."""
    if not isinstance(forward, MethodType):
        return inspect.signature(forward)
    if forward.__func__ not in _signatures:
        _signatures[forward.__func__] = inspect.signature(forward)
    return _signatures[forward.__func__]


def named_inputs(model: nn.Module, batch: Batch) -> dict[str, Any]:
    """What the batch gives the model, by the names of its own ``forward``."""
    given = vars(model).get("forward")
    signature = _signature(given.own if isinstance(given, GivenInputs) else model.forward)
    named = dict(signature.bind(*batch.args, **batch.kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(name, {})
    return named


def tensors_given(model: nn.Module, batch: Batch) -> list[torch.Tensor]:
    """The tensors that the model takes of a batch, by position.

    A model that takes more gets a forward that takes these, when its first batch is seen.

    Raises:
        ValueError: ``forward`` does not take these inputs, or they are no tensors and no plain values.
    """
    given = vars(model).get("forward")
    own = given.own if isinstance(given, GivenInputs) else model.forward
    name = f"{type(model).__name__}.forward"
    try:
        bound = _signature(own).bind(*batch.args, **batch.kwargs)
    except TypeError as error:
        raise ValueError(f"the data does not fit {name}: {error}") from None
    if not isinstance(given, GivenInputs) and not bound.kwargs and all(isinstance(v, torch.Tensor) for v in bound.args):
        return list(bound.args)
    leaves, structure = flatten((bound.args, bound.kwargs))
    for leaf in leaves:
        try:
            check_leaf(leaf)
        except ValueError as error:
            raise ValueError(f"{name} is given what cannot be an input: {error}") from None
    if not isinstance(given, GivenInputs):
        given = GivenInputs(own, structure, leaves)
        model.forward = given
    given.check(structure, leaves)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
