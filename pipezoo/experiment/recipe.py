"""The recipe around an optimizer's step: keys of the group ``optimizer`` that are ours, whatever optimizer it is.

optimizer:
  clip: 1.0                                       Recipe(clip=1.0, groups=(ParameterGroup(("*.bias",), ...),))
  groups: [{names: '*.bias', weight_decay: 0}]
  _target_: ...                                   Component("optimizer", ...)
  lr: 0.1
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.validators import check_int, check_number

GROUP = "optimizer"


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with options of their own. What two selectors are given for must fit both.

    Args:
        names: patterns of names in the unsplit model, as a shell has them (``*``, ``?``, ``[ab]``); empty: any name.
        max_dims: the most dimensions of a parameter; 1 is vectors: biases, and the weights of norms.
        options: of the optimizer, by name.
    """

    names: tuple[str, ...] = ()
    max_dims: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """What is done before and after the optimizer's own step.

    Args:
        clip: the largest norm of all gradients together; ``inf``: the norm is measured alone; None: neither.
        groups: :class:`ParameterGroup`, or mappings of their ``names``, ``max_dims`` and options. A parameter belongs
            to the first that fits.
        accumulate: how many steps add up their gradients before the optimizer moves; a mean loss is averaged over them.
        ema: decay of the moving average of the parameters; None: none is kept.

    Raises:
        ArgumentError: a value out of range.
    """

    clip: float | None = None
    groups: Any = ()
    accumulate: int = 1
    ema: float | None = None

    def __post_init__(self) -> None:
        if self.clip is not None:
            clip = math.inf if self.clip == ".inf" else self.clip  # type: ignore[comparison-overlap]
            object.__setattr__(self, "clip", check_number("clip", clip, above=True, infinite=True))
        object.__setattr__(self, "groups", _groups(self.groups))
        check_int("accumulate", self.accumulate, 1)
        if self.ema is not None:
            object.__setattr__(self, "ema", check_number("ema", self.ema))
            if self.ema >= 1:
                raise ArgumentError("ema", self.ema, "must keep less than all of the average", "in [0, 1)")

    def told(self) -> dict[str, Any]:
        """What is not as it is by default, by key, in plain values."""
        plain = {"clip": self.clip, "groups": [_plain(group) for group in self.groups], "ema": self.ema}
        accumulate = {"accumulate": self.accumulate} if self.accumulate > 1 else {}
        return {key: value for key, value in plain.items() if value not in (None, [])} | accumulate


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


def _groups(given: Any) -> tuple[ParameterGroup, ...]:
    if given is None:
        return ()
    if not isinstance(given, (list, tuple)):
        raise ArgumentError("groups", given, "must be a list", "[{names: ['*.bias'], weight_decay: 0}]")
    return tuple(one if isinstance(one, ParameterGroup) else _group(place, one) for place, one in enumerate(given))


def _group(place: int, given: Any) -> ParameterGroup:
    at = f"groups[{place}]"
    if not isinstance(given, Mapping):
        raise ArgumentError(at, given, "must be selectors and options", "{names: ['*.bias'], weight_decay: 0}")
    names, max_dims = given.get("names", ()), given.get("max_dims")
    names = (names,) if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
        raise ArgumentError(f"{at}.names", names, "must be patterns of parameter names", "['*.bias', '*norm*']")
    if max_dims is not None:
        check_int(f"{at}.max_dims", max_dims, 0)
    if not names and max_dims is None:
        raise ArgumentError(at, dict(given), "selects no parameters", "names: ['*.bias'], max_dims: 1")
    options = {str(key): value for key, value in given.items() if key not in ("names", "max_dims")}
    if not options:
        raise ArgumentError(at, dict(given), "has no option", "one of the optimizer, like weight_decay: 0")
    return ParameterGroup(tuple(names), max_dims, options)


def _plain(group: ParameterGroup) -> dict[str, Any]:
    selectors = {"names": list(group.names), "max_dims": group.max_dims}
    return {**{key: value for key, value in selectors.items() if value not in (None, [])}, **group.options}
