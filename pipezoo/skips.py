"""Skips: a stage may use what any earlier stage made, beside what the stage before it returns.

    stage 0 ──x──► stage 1 ──x──► stage 2 ──x──► stage 3
        └───────── "h" ────────────────────────────▲            stage 3 takes {"h": Skip(0, "h")}

A stage that makes one returns ``WithSkips(x, {"h": h})`` in place of ``x``. A stage that uses one says so by its
attribute ``takes``, and gets it as a keyword argument: ``forward(self, x, *, h)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Skip(NamedTuple):
    """A named value of an earlier stage.

    Args:
        stage: the one that makes it.
        name: what it calls it.
    """

    stage: int
    name: str


@dataclass(frozen=True)
class WithSkips:
    """What a stage returns that makes skips.

    Args:
        output: for the next stage, as without skips.
        skips: by name, what later stages may take: tensors, or any pytree of tensors and plain values.
    """

    output: Any
    skips: Mapping[str, Any] = field(default_factory=dict)


def taken(stage: object) -> Mapping[str, Skip]:
    """The skips that a stage takes, by the keyword argument of its ``forward``; none where it says nothing."""
    return {name: Skip(*source) for name, source in (getattr(stage, "takes", None) or {}).items()}


def arguments(output: Any) -> tuple[Any, ...]:
    """What a stage returns, as the positional arguments of the next: a plain tuple is spread, all else is one value."""
    return output if type(output) is tuple else (output,)


def run_stages(stages: Sequence[Callable[..., Any]], inputs: Sequence[Any]) -> Any:
    """The output of the last stage, all of them called one after the other.

    Args:
        inputs: of the first stage, positional.
    """
    result: Any = tuple(inputs)
    made: dict[Skip, Any] = {}
    for index, stage in enumerate(stages):
        result = stage(*arguments(result), **{name: made[skip] for name, skip in taken(stage).items()})
        if isinstance(result, WithSkips):
            made.update({Skip(index, name): value for name, value in result.skips.items()})
            result = result.output
    return result
