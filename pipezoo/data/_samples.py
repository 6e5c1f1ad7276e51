"""From samples, as data sets give them, to a batch.

(x, y)  (x, mask, y)                 the last one is the target, those before it are positional inputs
{"input_ids": ..., "labels": ...}    the target by its name, the others inputs by name
{"input_ids": ...}   shift=true      input: all tokens of a row but the last; target: all but the first
Batch                                as it is
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import default_collate

from pipezoo.data.batch import Batch
from pipezoo.errors import ArgumentError, first_line

TARGETS = ("labels", "label", "target", "targets")  # names that a target has where none is given


@dataclass(frozen=True)
class Form:
    """Which parts of a sample are inputs and which is the target.

    Args:
        inputs: names of the inputs, in the order of the model's forward; empty: all but the target.
        target: name of the target, or of several, which make a dict; None:
            ``labels``, ``label``, ``target`` or ``targets``, whichever is there.
        shift: whether input and target are one sequence of tokens, the target a token later.
        collate: makes one value of a list of samples; None: torch's own.
    """

    inputs: tuple[str, ...] = ()
    target: str | Sequence[str] | None = None
    shift: bool = False
    collate: Callable[[list[Any]], Any] | None = None

    def batch_of_samples(self, samples: list[Any]) -> Batch:
        """Raises ValueError: they do not fit together, or into an input and a target."""
        try:
            collated = (self.collate or default_collate)(samples)
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise ValueError(f"its samples do not make one batch: {first_line(error)}; {_unlike(samples)}") from None
        return self.batch(collated)

    def batch(self, value: Any) -> Batch:
        """Of what is collated already. Raises ValueError."""
        if isinstance(value, Batch):
            return value
        if self.shift:
            return self._shifted(value)
        if isinstance(value, Mapping):
            return self._named(value)
        if isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], Mapping):
            return _checked(Batch((), dict(value[0]), value[1]))
        if isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], (tuple, list)):
            return _checked(Batch(tuple(value[0]), {}, value[1]))
        if isinstance(value, (tuple, list)) and len(value) > 1:
            return _checked(Batch(tuple(value[:-1]), {}, value[-1]))
        raise ValueError(
            f"a sample is {_kind(value)}; valid: (input, ..., target), a dict with a target, a pipezoo Batch, "
            "or one sequence of tokens with shift=true"
        )

    def _named(self, value: Mapping[str, Any]) -> Batch:
        names = [str(name) for name in value]
        target = self.target or next((name for name in TARGETS if name in value), None)
        targets = [target] if isinstance(target, str) else [*(target or ())]
        if not targets or any(name not in value for name in targets):
            raise ArgumentError("target", self.target, f"a sample has {', '.join(names)}", "the name of one of these")
        for name in self.inputs:
            if name not in value:
                raise ArgumentError("inputs", list(self.inputs), f"a sample has {', '.join(names)} and no {name}")
        inputs = self.inputs or tuple(name for name in names if name not in targets)
        judged = value[target] if isinstance(target, str) else {name: value[name] for name in targets}
        return _checked(Batch((), {name: value[name] for name in inputs}, judged))

    def _shifted(self, value: Any) -> Batch:
        if isinstance(value, Mapping):
            name = self.inputs[0] if self.inputs else next(iter(value))
            if name not in value:
                raise ArgumentError("inputs", list(self.inputs), f"a sample has {', '.join(map(str, value))}")
            value = value[name]
        if isinstance(value, (tuple, list)) and len(value) == 1:
            value = value[0]
        if not isinstance(value, torch.Tensor) or value.dim() < 2 or value.shape[1] < 2:
            raise ArgumentError("shift", True, f"a row is no sequence of two tokens or more, but {_kind(value)}")
        tokens = value if value.is_floating_point() else value.long()
        return Batch((tokens[:, :-1].contiguous(),), {}, tokens[:, 1:].contiguous())


def _checked(batch: Batch) -> Batch:
    target = batch.target if isinstance(batch.target, Mapping) else {"": batch.target}
    targets = ((f"target {name}".strip(), value) for name, value in target.items())
    for what, value in (*enumerate(batch.args), *batch.kwargs.items(), *targets):
        if not isinstance(value, torch.Tensor):
            name = f"the {what}" if str(what).startswith("target") else f"input {what}"
            raise ValueError(f"{name} is {_kind(value)} when collated; valid: tensors, or a collate of your own")
    return batch


def _unlike(samples: Sequence[Any]) -> str:
    """Which sample of a batch has other shapes than the first one."""
    first = _shapes(samples[0])
    for place, sample in enumerate(samples):
        if _shapes(sample) != first:
            return f"row {place} of the batch is {_shapes(sample)}, row 0 is {first}"
    return f"a sample is {first}"


def _shapes(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{tuple(value.shape)} {str(value.dtype)[6:]}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shapes(item)}" for name, item in value.items())
    if isinstance(value, (tuple, list)):
        if value and all(isinstance(item, (int, float)) for item in value):
            return f"{len(value)} numbers"
        return ", ".join(map(_shapes, value))
    shape = getattr(value, "shape", None)
    return f"{tuple(shape)} {value.dtype}" if shape is not None else type(value).__name__


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"of type {type(value).__name__}"
