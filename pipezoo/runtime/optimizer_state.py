"""What the next step of an optimizer depends on, as plain data by the names of parameters; and back into an optimizer.

    state        exp_avg, momentum ...         by parameter
    options      lr, betas, updates ...        of the parameter's group
    rest         what the object has besides:  a step count, an LR schedule, fp32 masters, an optimizer within
    began        options and plain attributes when the optimizer was new: what nobody moved since is an argument

Every process holds a part. Put together by name, they serve any other split of the model: state and options always;
of the rest, what goes along with the parameters in their order (masters), and what is the same on every process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from pipezoo.runtime.whole import part_of, whole

Names = Mapping[int, str]  # by the id of a parameter
PLAIN = (bool, int, float, str, type(None))
BY_NAME, STATE_DICT, OPTIMIZER, UNKNOWN = "by name", "state_dict", "optimizer", "unknown"


class CannotRestoreError(ValueError):
    """Saved state does not fit the optimizer that is to go on with it; in words."""


# Out of an optimizer -----------------------------------------------------------------------------------------------


def options_of(optimizer: torch.optim.Optimizer, names: Names) -> dict[str, dict[str, Any]]:
    """The options of the group of every parameter."""
    found = {}
    for group in optimizer.param_groups:
        options = {key: copied(value) for key, value in group.items() if key not in ("params", "param_names")}
        found.update({names[id(parameter)]: options for parameter in group["params"] if id(parameter) in names})
    return found


def began(optimizer: torch.optim.Optimizer, names: Names) -> dict[str, Any]:
    """What a new optimizer was told: ``options`` and plain attributes, ``rest``."""
    rest = {key: copied(value) for key, value in vars(optimizer).items() if key not in _base() and _is_plain(value)}
    return {"options": options_of(optimizer, names), "rest": rest}


def capture(optimizer: torch.optim.Optimizer, names: Names, told: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All of it.

    Args:
        told: what :func:`began` said of it when it was new.
    """
    parameters = _parameters(optimizer)
    own = [names.get(id(parameter), "") for parameter in parameters]
    state = {
        names[id(parameter)]: {key: copied(value, parameter) for key, value in optimizer.state[parameter].items()}
        for parameter in parameters
        if parameter in optimizer.state and id(parameter) in names
    }
    attributes = {key: value for key, value in vars(optimizer).items() if key not in _base()}
    rest = {key: _encoded(value, parameters, own) for key, value in attributes.items()}
    if type(optimizer).state_dict is not torch.optim.Optimizer.state_dict:
        more = {k: v for k, v in optimizer.state_dict().items() if k not in ("state", "param_groups")}
        rest["state_dict()"] = _encoded(more, parameters, own)
    return {
        "algorithm": type(optimizer).__name__,
        "names": own,
        "state": state,
        "options": options_of(optimizer, names),
        "began": dict(told or {"options": {}, "rest": {}}),
        "rest": {key: value for key, value in rest.items() if not _is(value, UNKNOWN)},
    }


def saved_of(holder: Any) -> Any:
    """The ``state_dict()`` of an object, as plain data. Raises ValueError: it holds what nobody can save."""
    found = _encoded(holder.state_dict(), (), ())
    if _is(found, UNKNOWN):
        raise ValueError(f"the state_dict() of {type(holder).__name__} holds more than numbers, words and tensors")
    return found


def copied(value: Any, like: torch.Tensor | None = None) -> Any:
    """A tensor on the CPU, whole, without the rest of the memory that it is a view of.

    Args:
        like: the parameter that it belongs to (:func:`~pipezoo.runtime.whole.whole`).
    """
    if isinstance(value, torch.Tensor):
        return whole(value, like).cpu().clone()
    return tuple(map(copied, value)) if isinstance(value, tuple) else value


@cache
def _base() -> frozenset[str]:
    """The attributes that every optimizer has."""
    return frozenset(vars(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)))


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _aligned(values: Sequence[Any], parameters: Sequence[torch.Tensor]) -> bool:
    """Whether there is a tensor of the same shape for every parameter, in their order."""
    return len(values) == len(parameters) > 0 and all(
        isinstance(value, torch.Tensor) and value.shape == parameter.shape
        for value, parameter in zip(values, parameters, strict=True)
    )


def _encoded(value: Any, parameters: Sequence[torch.Tensor], own: Sequence[str]) -> Any:
    """Plain data for ``value``; :data:`UNKNOWN` for what nobody can save."""
    if isinstance(value, (*PLAIN, torch.Tensor)):
        return copied(value)
    if isinstance(value, torch.optim.Optimizer):
        inner = _parameters(value)
        if not _aligned(inner, parameters):
            return _tagged(UNKNOWN)
        names = {id(parameter): name for parameter, name in zip(inner, own, strict=True)}
        return _tagged(OPTIMIZER, capture(value, names))
    if isinstance(value, (list, tuple)):
        if _aligned(value, parameters):
            return _tagged(BY_NAME, dict(zip(own, map(copied, value, parameters), strict=True)))
        items = [_encoded(item, parameters, own) for item in value]
        return _tagged(UNKNOWN) if any(_is(item, UNKNOWN) for item in items) else type(value)(items)
    if isinstance(value, dict):
        if value and all(isinstance(key, torch.Tensor) for key in value):
            by_id = {id(parameter): name for parameter, name in zip(parameters, own, strict=True)}
            if all(id(key) in by_id and isinstance(item, torch.Tensor) for key, item in value.items()):
                return _tagged(BY_NAME, {by_id[id(key)]: copied(item, key) for key, item in value.items()})
            return _tagged(UNKNOWN)
        items_by_key = {key: _encoded(item, parameters, own) for key, item in value.items()}
        plain = all(isinstance(key, (str, int)) for key in value)
        unknown = not plain or any(_is(item, UNKNOWN) for item in items_by_key.values())
        return _tagged(UNKNOWN) if unknown else items_by_key
    if callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None)):
        inside = _encoded(value.state_dict(), parameters, own)
        return inside if _is(inside, UNKNOWN) else _tagged(STATE_DICT, inside)
    return _tagged(UNKNOWN)


def _is_plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, (list, tuple)) and all(map(_is_plain, value)))


def _tagged(kind: str, value: Any = None) -> dict[str, Any]:
    return {"pipezoo": kind, "value": value}


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, dict) and value.get("pipezoo") == kind


# Into an optimizer -------------------------------------------------------------------------------------------------


def restore(
    optimizer: torch.optim.Optimizer,
    names: Names,
    parts: Sequence[Mapping[str, Any]],
    fresh: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Have an optimizer go on from what :func:`capture` gave on every process.

    Args:
        fresh: by name, the options that it began with, where somebody moved them since; None: they are as they were.

    Raises:
        CannotRestoreError: it is of another kind, or what was saved is of no use for these parameters.
    """
    parts = [part for part in parts if part["names"]]
    for part in parts:
        if part["algorithm"] != type(optimizer).__name__:
            raise CannotRestoreError(f"was trained by {part['algorithm']}, and this is {type(optimizer).__name__}")
    state, options = _together(part["state"] for part in parts), _together(part["options"] for part in parts)
    told = _together(part["began"]["options"] for part in parts)
    parameters = _parameters(optimizer)
    own = [names.get(id(parameter), "") for parameter in parameters]
    for parameter, name in zip(parameters, own, strict=True):
        if name in state:
            optimizer.state[parameter] = {key: _placed(value, parameter) for key, value in state[name].items()}
    for group in optimizer.param_groups:
        _restore_group(group, [names.get(id(parameter), "") for parameter in group["params"]], options, told, fresh)
    for key in dict.fromkeys(key for part in parts for key in part["rest"]):
        _restore_attribute(optimizer, key, [part for part in parts if key in part["rest"]], parameters, own)


def _together(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}


def _restore_group(
    group: dict[str, Any],
    own: Sequence[str],
    options: Mapping[str, Any],
    told: Mapping[str, Any],
    fresh: Mapping[str, Mapping[str, Any]] | None,
) -> None:
    known = [name for name in own if name in options]
    if not known:
        return
    name = known[0]
    for other in known[1:]:
        if not same(options[other], options[name]):
            raise CannotRestoreError(f"{name} and {other} were in groups of other options, and are in one group now")
    now = group if fresh is None else fresh.get(name, group)
    for key, value in options[name].items():
        if _was_moved(key, value, told.get(name, {}), now):
            group[key] = copied(value)
        elif key in now:
            group[key] = copied(now[key])


def _was_moved(key: str, value: Any, told: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the optimizer itself moved a value; if not, the arguments of the new one count."""
    if key not in told:
        return True
    if same(value, told[key]):
        return False
    if key in now and not same(copied(now[key]), told[key]):
        raise CannotRestoreError(
            f"{key} began at {told[key]}, was moved to {value} by the optimizer, and is to begin at {now[key]} now; "
            f"valid: {key}={told[key]}"
        )
    return True


def _restore_attribute(
    optimizer: torch.optim.Optimizer,
    key: str,
    parts: Sequence[Mapping[str, Any]],
    parameters: Sequence[torch.Tensor],
    own: Sequence[str],
) -> None:
    saved = [part["rest"][key] for part in parts]
    alike = [part["rest"][key] for part in parts if list(part["names"]) == list(own)]
    value = alike[0] if alike else _merged(saved)
    if value is None and any(item is not None for item in saved):
        raise CannotRestoreError(f"{key} of {type(optimizer).__name__} is another one on each rank that wrote it")
    current = getattr(optimizer, key, None)
    if key == "state_dict()":
        optimizer.load_state_dict({**optimizer.state_dict(), **value})
    elif _is(value, OPTIMIZER):
        inner = [item["value"] for item in saved]
        if not isinstance(current, torch.optim.Optimizer):
            raise CannotRestoreError(f"{key} of {type(optimizer).__name__} is no optimizer any more")
        mine = {id(parameter): name for parameter, name in zip(_parameters(current), own, strict=True)}
        restore(current, mine, inner)
    elif _is(value, STATE_DICT):
        current.load_state_dict(value["value"])  # type: ignore[union-attr]
    elif _is(value, BY_NAME):
        _fill(current, value["value"], parameters, own)
    elif _was_moved(key, value, parts[0]["began"]["rest"], vars(optimizer)):
        setattr(optimizer, key, copied(value))


def _merged(values: Sequence[Any]) -> Any:
    """One value for all processes; None where they differ."""
    if all(_is(value, BY_NAME) for value in values):
        return _tagged(BY_NAME, {name: tensor for value in values for name, tensor in value["value"].items()})
    if all(_is(value, OPTIMIZER) for value in values):
        return values[0]
    return values[0] if all(same(value, values[0]) for value in values) else None


def _fill(current: Any, by_name: Mapping[str, torch.Tensor], parameters: Sequence[torch.Tensor], own: Any) -> None:
    """Copy values into the tensors that go along with the parameters, which others may hold as well."""
    for place, (parameter, name) in enumerate(zip(parameters, own, strict=True)):
        target = current[parameter] if isinstance(current, dict) else current[place]
        with torch.no_grad():
            target.copy_(part_of(by_name[name], parameter))


def _placed(value: Any, parameter: torch.Tensor) -> Any:
    """State that has the parameter's shape is where the parameter is; a step count stays on the CPU."""
    if not isinstance(value, torch.Tensor):
        return value
    return part_of(value, parameter) if value.shape == parameter.shape else value.clone()


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, in nested plain data."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def names_of(parameters: Iterable[tuple[str, nn.Parameter]]) -> dict[int, str]:
    """The name of every parameter by its id."""
    return {id(parameter): name for name, parameter in parameters}
