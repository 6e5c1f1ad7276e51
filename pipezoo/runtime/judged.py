"""What a loss is given besides the model's output: one tensor, or several as if they were one.

    loss(output, target)                                 a tensor, as it is
    loss(output, {"cls": .., "box": ..})                 Judged(leaves cls, box)
    loss(output, target, attention_mask=mask)            Judged(leaves target, mask)       loss.inputs=[attention_mask]

A :class:`Judged` is cut into microbatches and moved like a tensor, so whoever does that need not know. The loss takes
it apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pipezoo.data.batch import Batch
from pipezoo.errors import ArgumentError
from pipezoo.runtime.given_inputs import named_inputs
from pipezoo.runtime.stages import to_dtype
from pipezoo.runtime.trees import Structure, flatten
from pipezoo.validators import unknown


class Judged:
    """Tensors whose first dimension is the rows of one batch, nested as a target and as inputs by name.

    Args:
        leaves, structure: of the pair (target, inputs).
    """

    def __init__(self, leaves: Sequence[torch.Tensor], structure: Structure) -> None:
        self.leaves, self._structure = tuple(leaves), structure

    @classmethod
    def of(cls, target: Any, inputs: Mapping[str, Any]) -> Judged:
        leaves, structure = flatten((target, dict(inputs)))
        return cls(leaves, structure)

    def parts(self) -> tuple[Any, dict[str, Any]]:
        """Target, and inputs by name."""
        target, inputs = self._structure.rebuild(self.leaves)
        return target, inputs

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Judged:
        return Judged([change(leaf) for leaf in self.leaves], self._structure)

    @property
    def shape(self) -> torch.Size:
        return self.leaves[0].shape

    def __len__(self) -> int:
        return len(self.leaves[0])

    def __getitem__(self, rows: slice) -> Judged:
        return self.each(lambda leaf: leaf[rows])

    def to(self, device: torch.device) -> Judged:
        return self.each(lambda leaf: leaf.to(device))

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Cut into rows, and rows behind each other: as of a tensor."""
        if function is torch.tensor_split:
            judged, *how = args
            cut = [torch.tensor_split(leaf, *how) for leaf in judged.leaves]
            return tuple(cls(leaves, judged._structure) for leaves in zip(*cut, strict=True))
        if function is torch.cat:
            (parts, *_) = args
            return cls(
                [torch.cat(leaves) for leaves in zip(*(p.leaves for p in parts), strict=True)], parts[0]._structure
            )
        return NotImplemented


class Takes:
    """In the place of a loss's ``forward``: takes a :class:`Judged` apart.

    Args:
        inputs: names of the model's inputs that the loss takes by keyword.
    """

    def __init__(self, forward: Callable[..., Any], inputs: tuple[str, ...]) -> None:
        self.forward, self.inputs = forward, inputs

    def __call__(self, output: Any, judged: Any) -> Any:
        target, inputs = parts_of(judged)
        return self.forward(output, target, **inputs)


def prepare_loss(loss: nn.Module, batch: Batch, names: Sequence[str]) -> None:
    """Have a loss take what this batch, and so every other, gives it.

    Args:
        names: of the model's inputs that it asks for.

    Raises:
        ArgumentError: of ``inputs``, the loss takes no such keyword.
    """
    if isinstance(vars(loss).get("forward"), Takes) or (isinstance(batch.target, torch.Tensor) and not names):
        return
    try:
        inspect.signature(loss.forward).bind(None, None, **dict.fromkeys(names))
    except TypeError as error:
        why = f"{type(loss).__name__}.forward: {error}"
        raise ArgumentError("inputs", list(names), why, "names that its forward has after output and target") from None
    loss.forward = Takes(loss.forward, tuple(names))


def judged_by(loss: nn.Module, model: nn.Module, batch: Batch, dtype: torch.dtype) -> Any:
    """What a loss is given of this batch, floats in ``dtype``: a tensor, or a :class:`Judged`.

    Raises:
        ValueError: an input that it asks for is not among the model's, or something is no tensor.
    """
    takes = vars(loss).get("forward")
    if not isinstance(takes, Takes):
        if not isinstance(batch.target, torch.Tensor):
            raise ValueError(f"the target is {type(batch.target).__name__}, and was a tensor in the first batch")
        return to_dtype(batch.target, dtype)
    known = named_inputs(model, batch) if takes.inputs else {}
    for name in takes.inputs:
        if name not in known:
            raise ArgumentError("inputs", list(takes.inputs), unknown("input of the model", name, list(known)))
    inputs = {name: known[name] for name in takes.inputs}
    for what, value in (("the target", batch.target), *((f"the loss's input {name}", inputs[name]) for name in inputs)):
        wrong = [type(leaf).__name__ for leaf in flatten(value)[0] if not isinstance(leaf, torch.Tensor)]
        if wrong or not flatten(value)[0]:
            raise ValueError(f"{what} is {' and '.join(wrong) or 'empty'}; valid: a tensor, or a container of tensors")
    judged = Judged.of(batch.target, inputs)
    return judged.each(lambda leaf: to_dtype(leaf, dtype))


def parts_of(judged: Any) -> tuple[Any, dict[str, Any]]:
    """Target, and inputs by name, of what a loss is given."""
    return judged.parts() if isinstance(judged, Judged) else (judged, {})


def tensors_in(judged: Any) -> tuple[torch.Tensor, ...]:
    """The tensors that a loss is given."""
    return judged.leaves if isinstance(judged, Judged) else (judged,)
