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
        steps: their indices, or one; None: the last one before those that are recorded.
        shapes, memory, stacks: whether operators have their inputs' shapes, memory and callers.

    Raises:
        ArgumentError: a value out of range.
    """

    steps: int | Sequence[int] | None = None
    shapes: bool = False
    memory: bool = False
    stacks: bool = False

    def __post_init__(self) -> None:
        for step in self._listed or ():
            check_int("steps", step, 0)
        if self._listed == []:
            raise ArgumentError("steps", [], "names no step", "[2,3], or null")
        for name in ("shapes", "memory", "stacks"):
            check_bool(name, getattr(self, name))

    @property
    def _listed(self) -> list[int] | None:
        return [self.steps] if isinstance(self.steps, int) else None if self.steps is None else list(self.steps)

    def chosen(self, to_do: range, record_steps: int) -> tuple[int, ...]:
        """The steps of a run that does these.

        Raises:
            ArgumentError: it does not come to one of them.
        """
        listed = self._listed
        if listed is None:
            return (max(to_do.start, to_do.stop - record_steps - 1),)
        for step in listed:
            if step not in to_do:
                valid = f"{to_do.start}..{to_do.stop - 1}"
                raise ArgumentError("steps", self.steps, f"the run has no step {step}", valid)
        return tuple(listed)
