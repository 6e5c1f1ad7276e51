"""Which steps torch's profiler looks at, and how closely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipezoo.errors import ArgumentError
from pipezoo.validators import check_bool, check_int


@dataclass(frozen=True)
class ProfileOptions:
    """``profile=torch``.

    Args:
        steps: their indices; None: the last one before those that are recorded.
        shapes, memory, stacks: whether operators have their inputs' shapes, memory and callers.

    Raises:
        ArgumentError: a value out of range.
    """

    steps: Sequence[int] | None = None
    shapes: bool = False
    memory: bool = False
    stacks: bool = False

    def __post_init__(self) -> None:
        for step in self.steps or ():
            check_int("steps", step, 0)
        if self.steps is not None and not self.steps:
            raise ArgumentError("steps", list(self.steps), "names no step", "[2,3], or null")
        for name in ("shapes", "memory", "stacks"):
            check_bool(name, getattr(self, name))

    def chosen(self, to_do: range, record_steps: int) -> tuple[int, ...]:
        """The steps of a run that does these.

        Raises:
            ArgumentError: it does not come to one of them.
        """
        if self.steps is None:
            return (max(to_do.start, to_do.stop - record_steps - 1),)
        for step in self.steps:
            if step not in to_do:
                valid = f"{to_do.start}..{to_do.stop - 1}"
                raise ArgumentError("steps", list(self.steps), f"the run has no step {step}", valid)
        return tuple(self.steps)
