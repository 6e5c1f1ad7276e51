"""Every batch against the first: messages are received in memory whose shape is known before they are sent.

    batch 0   (16, 8) int64     batches are looked at before the start; each shape has a wiring of its own, found by a
    batch 1   (16, 6) int64     microbatch that runs forwards on copies: the shapes of all messages

Where batches take long to make, only the first of them are looked at. Another shape that comes later is refused, but on
one process, which sends no messages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from pipezoo.errors import ConfigError
from pipezoo.runtime.wiring import Wiring

Tensors = Sequence[torch.Tensor]
LOOK = 1.0  # seconds for the batches after the first


@dataclass(frozen=True)
class Shapes:
    """The shapes of batches that a run is made for.

    Args:
        first: inputs of the first batch, and behind them what its loss is given, without memory.
        sizes: ``[num_shapes]``: the shapes of these in batches of one kind; first those of the first batch.
        wirings: ``[num_shapes]``: what crosses between the stages.
        of_step: the shape of each step that was looked at.
        start: the first step that was looked at.
        num_inputs: of the model.
    """

    first: tuple[torch.Tensor, ...]
    sizes: tuple[tuple[torch.Size, ...], ...]
    wirings: tuple[Wiring, ...]
    of_step: tuple[int, ...] = ()
    start: int = 0
    num_inputs: int = 1

    @classmethod
    def of(cls, first: tuple[torch.Tensor, ...], wiring: Wiring, num_inputs: int | None = None) -> Shapes:
        """One shape alone."""
        return cls(first, (_sizes(first),), (wiring,), num_inputs=len(first) - 1 if num_inputs is None else num_inputs)

    def of_known(self, step: int) -> int | None:
        """The shape of a step, where that can be told without its batch."""
        place = step - self.start
        if len(self.sizes) == 1:
            return 0
        return self.of_step[place] if 0 <= place < len(self.of_step) else None

    def find(self, step: int, tensors: Tensors, num_processes: int, num_microbatches: int) -> int:
        """The shape of this batch; one process takes any.

        Raises:
            ConfigError: this run cannot take it; one line with the step and both shapes.
        """
        check_batch(step, tensors, self.first, num_microbatches)
        if _sizes(tensors) in self.sizes:
            return self.sizes.index(_sizes(tensors))
        if num_processes == 1:
            return 0
        raise ConfigError(
            f"{self.differs(step, tensors)}; {len(self.of_step)} steps were looked at before the start; "
            "valid: shapes that these have, or launch=virtual, which sends no messages"
        )

    def differs(self, step: int, tensors: Tensors) -> str:
        """What is not as in the first batch, in words."""
        pairs = enumerate(zip(tensors, self.first, strict=True))
        return _change(step, tensors, self.first, next(i for i, (new, old) in pairs if new.shape != old.shape))


def look(
    shapes: Shapes,
    steps: range,
    batch: Callable[[int], Tensors],
    wire: Callable[[Tensors], Wiring],
    num_microbatches: int,
    instead: str = "",
    seconds: float = LOOK,
) -> Shapes:
    """Look at the batches of these steps, until ``seconds`` have passed or one cannot be made.

    Args:
        shapes: of the first batch.
        batch: inputs and target of a step.
        wire: finds the wiring for a batch.
        instead: what would do, where a second shape would not.

    Raises:
        ConfigError: a batch is none that a run can take.
        ValueError: the model cannot.
    """
    until, of_step = time.monotonic() + seconds, list[int]()
    for step in steps:
        if time.monotonic() > until:
            break
        try:
            tensors = batch(step)
        except Exception:
            break  # it is the run's to say, when it comes there
        check_batch(step, tensors, shapes.first, num_microbatches)
        if (sizes := _sizes(tensors)) not in shapes.sizes:
            if instead:
                raise ConfigError(f"{shapes.differs(step, tensors)}; valid: {instead}")
            wiring = wire(tensors)
            if _kinds(wiring) != _kinds(shapes.wirings[0]):
                raise ConfigError(f"{shapes.differs(step, tensors)}; with it, other tensors cross between the stages")
            shapes = replace(shapes, sizes=(*shapes.sizes, sizes), wirings=(*shapes.wirings, wiring))
        of_step.append(shapes.sizes.index(sizes))
    return replace(shapes, of_step=tuple(of_step), start=steps.start)


def check_batch(step: int, tensors: Tensors, first: Tensors, num_microbatches: int) -> None:
    """Refuse a batch that no run can take after this first one.

    Args:
        tensors: the inputs of the batch of this step, and last its target.
        first: the same of the batch of step 0.

    Raises:
        ConfigError: one line with the step and both shapes.
    """
    if len(tensors) != len(first):
        raise ConfigError(
            f"data: the batch of step {step} has {len(tensors) - 1} inputs, and that of step 0 has {len(first) - 1}"
        )
    rows = len(tensors[0]) if tensors[0].dim() else 0
    for index, (tensor, like) in enumerate(zip(tensors, first, strict=True)):
        if tensor.dtype != like.dtype:
            raise ConfigError(f"{_change(step, tensors, first, index)}; valid: the same dtype in every step")
        if not tensor.dim() or len(tensor) != rows or not rows or rows % num_microbatches:
            raise ConfigError(
                f"{_change(step, tensors, first, index)}; "
                f"valid: as many rows in every tensor, a multiple of microbatches={num_microbatches}"
            )


def _change(step: int, tensors: Tensors, first: Tensors, index: int) -> str:
    what = "the target" if index == len(first) - 1 else f"input {index}"
    return f"data: {what} is {_words(tensors[index])} in step {step}, and was {_words(first[index])} in step 0"


def _sizes(tensors: Tensors) -> tuple[torch.Size, ...]:
    return tuple(tensor.shape for tensor in tensors)


def _kinds(wiring: Wiring) -> list[tuple[object, ...]]:
    """What must not hang on the shape of a batch: how many tensors cross where, and which of them learn."""
    sent = [(h.before, h.after, *((form.dtype, form.requires_grad) for form in h.forms)) for h in wiring.hops]
    return [*sent, *(plan.given for plan in wiring.stages)]


def _words(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype)[6:]}"
