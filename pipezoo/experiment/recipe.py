"""The recipe around an optimizer's step: keys of the group ``optimizer`` that are ours, whatever optimizer it is.

optimizer:
  clip: 1.0               Recipe(clip=1.0)
  _target_: ...           Component("optimizer", ...)
  lr: 0.1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.validators import check_number

GROUP = "optimizer"


@dataclass(frozen=True)
class Recipe:
    """What is done before and after the optimizer's own step.

    Args:
        clip: the largest norm of all gradients together; ``inf``: the norm is measured alone; None: neither.

    Raises:
        ArgumentError: a value out of range.
    """

    clip: float | None = None

    def __post_init__(self) -> None:
        if self.clip is not None:
            object.__setattr__(self, "clip", check_number("clip", self.clip, above=True, infinite=True))

    def told(self) -> dict[str, Any]:
        """What is not as it is by default, by key."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }


KEYS = tuple(field.name for field in fields(Recipe))


def recipe_of(node: Any) -> tuple[Recipe, Any]:
    """The recipe in the node ``optimizer`` of a config, and the node without it. Raises ConfigError."""
    if not isinstance(node, Mapping):
        return Recipe(), node
    try:
        recipe = Recipe(**{key: node[key] for key in KEYS if key in node})
    except ArgumentError as error:
        raise ConfigError(error.at(f"{GROUP}.{error.argument}"), error, error.why) from None
    return recipe, {key: value for key, value in node.items() if key not in KEYS}
