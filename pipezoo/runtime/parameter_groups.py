"""Which parameter belongs to which group of an optimizer, decided by name on the unsplit model.

    optimizer.groups     [{names: '*.bias', weight_decay: 0}]
    groups of torch      0: all others    1: those that end in .bias

Every rank has all groups in this order, empty ones too: a learning-rate schedule may know them by their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from pipezoo.errors import ArgumentError
from pipezoo.experiment.recipe import ParameterGroup

Places = Mapping[str, int]  # of a group, by the name of a parameter


def places_of(groups: tuple[ParameterGroup, ...], model: nn.Module) -> dict[str, int]:
    """For each parameter that learns its group: 0 where none fits, else one more than its place in ``groups``.

    A parameter with several names fits by any of them, and stands under its first.

    Raises:
        ArgumentError: a group that no parameter is left for.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    places = {
        name: next((at for at, group in enumerate(groups, 1) if _fits(group, names[id(p)], p)), 0)
        for name, p in learning.items()
    }
    for at, group in enumerate(groups, 1):
        if at not in places.values():
            raise _nothing_left(at - 1, group, learning, names)
    return places


def _fits(group: ParameterGroup, names: Iterable[str], parameter: nn.Parameter) -> bool:
    named = not group.names or any(fnmatchcase(name, pattern) for name in names for pattern in group.names)
    return named and (group.max_dims is None or parameter.dim() <= group.max_dims)


def _nothing_left(
    place: int, group: ParameterGroup, learning: Mapping[str, nn.Parameter], names: Mapping[int, list[str]]
) -> ArgumentError:
    if any(_fits(group, names[id(parameter)], parameter) for parameter in learning.values()):
        why, valid = "every parameter that fits is in a group before it", "another order of groups"
    else:
        listed = list(learning)
        why, valid = "fits no parameter that learns", ", ".join(listed[:6]) + (" ..." if len(listed) > 6 else "")
    key = "names" if group.names else "max_dims"
    value = list(group.names) if group.names else group.max_dims
    return ArgumentError(f"groups[{place}].{key}", value, why, valid)


def in_groups(
    groups: tuple[ParameterGroup, ...], places: Places, parameters: Mapping[str, nn.Parameter]
) -> list[nn.Parameter] | list[dict[str, Any]]:
    """What an optimizer is given: the parameters, or groups of them with their options."""
    if not groups:
        return list(parameters.values())
    members: list[list[nn.Parameter]] = [[] for _ in range(len(groups) + 1)]
    for name, parameter in parameters.items():
        members[places[name]].append(parameter)
    own = [dict(group.options) for group in groups]
    return [{"params": held, **options} for held, options in zip(members, [{}, *own], strict=True)]
