"""Copies of modules, which are tried in place of the modules themselves.

module ──────► copy             deepcopy: parameters, buffers, attributes, hooks of modules
parameter ───► copy             and the hooks of parameters, which deepcopy leaves out
lambda: module.count.add_(1)    a function that remembers the module: one that remembers the copy
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

OWN_TENSORS = ("_parameters", "_buffers", "_modules")  # of a module, which deepcopy has copied


def copies(
    modules: Sequence[nn.Module], shared: Sequence[Tensor] = (), instead: Mapping[int, Any] | None = None
) -> list[nn.Module]:
    """Copies of the modules; what they share among each other, the copies share. ``shared`` are not copied at all.

    Args:
        instead: what stands in the copies for a module or a tensor, wherever it is referred to; by the ``id`` of the
            original.
    """
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in _computed(modules)}
    memo |= {id(handle): handle for handle in _handles(modules)}
    memo |= {id(tensor): tensor for tensor in shared} | dict(instead or {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, about its own tree specs
        copied = copy.deepcopy(list(modules), memo)
    foreign = {
        id(inner) for outer in (instead or {}).values() if isinstance(outer, nn.Module) for inner in outer.modules()
    }
    twins = [module for module in _each(copied) if id(module) not in foreign]
    memo |= {id(twin): twin for module in twins for twin in (module, *module.parameters(False), *module.buffers(False))}
    for module in twins:
        _rebind(vars(module), memo)
    for parameter in {id(p): p for module in modules for p in module.parameters()}.values():
        twin = memo.get(id(parameter), parameter)
        if twin is parameter or id(parameter) in (instead or {}):
            continue
        for hook in (parameter._backward_hooks or {}).values():
            twin.register_hook(_own(hook, memo))
        for hook in (parameter._post_accumulate_grad_hooks or {}).values():
            twin.register_post_accumulate_grad_hook(_own(hook, memo))
    return copied


def _computed(modules: Sequence[nn.Module]) -> Iterator[Tensor]:
    """Attributes that are results of a computation, which deepcopy refuses."""
    for module in _each(modules):
        yield from (value for value in vars(module).values() if isinstance(value, Tensor) and not value.is_leaf)


def _handles(modules: Sequence[nn.Module]) -> Iterator[RemovableHandle]:
    """Handles of hooks among attributes: torch fails to copy a copy of one."""
    for module in _each(modules):
        for value in vars(module).values():
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(item, RemovableHandle):
                    yield item


def _each(modules: Sequence[nn.Module]) -> Iterator[nn.Module]:
    found = {id(inner): inner for module in modules for inner in module.modules()}
    yield from found.values()


def _rebind(attributes: dict[str, Any], memo: dict[int, Any]) -> None:
    """Functions among attributes, and in dicts and lists of them, as they are for the copy."""
    for name, value in attributes.items():
        if name in OWN_TENSORS:
            continue
        if isinstance(value, (FunctionType, partial)):
            attributes[name] = _own(value, memo)
        elif isinstance(value, (dict, list)):
            for key, inner in [*(value.items() if isinstance(value, dict) else enumerate(value))]:
                if isinstance(inner, (FunctionType, partial)):
                    value[key] = _own(inner, memo)


def _own(value: Any, memo: dict[int, Any]) -> Any:
    """``value`` as it is for the copies that ``memo`` knows; itself where it remembers nothing of theirs."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, FunctionType):
        return _own_function(value, memo)
    if isinstance(value, MethodType):
        return MethodType(_own(value.__func__, memo), _own(value.__self__, memo))
    if isinstance(value, partial):
        arguments = [_own(inner, memo) for inner in value.args]
        return partial(_own(value.func, memo), *arguments, **{k: _own(v, memo) for k, v in value.keywords.items()})
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # a lock, a file, a process: there is only one of it
        return value


def _own_function(function: FunctionType, memo: dict[int, Any]) -> FunctionType:
    if not function.__closure__ and not function.__defaults__ and not function.__kwdefaults__:
        return function
    cells = tuple(memo.setdefault(id(cell), CellType()) for cell in function.__closure__ or ())
    defaults = function.__defaults__
    ours = FunctionType(function.__code__, function.__globals__, function.__name__, defaults, cells or None)
    memo[id(function)] = ours  # before its cells are filled, one of which may hold it
    ours.__dict__.update(function.__dict__)
    ours.__defaults__ = tuple(_own(value, memo) for value in defaults or ()) or None
    ours.__kwdefaults__ = {name: _own(value, memo) for name, value in (function.__kwdefaults__ or {}).items()}
    for cell, theirs in zip(cells, function.__closure__ or (), strict=True):
        if _is_empty(cell) and not _is_empty(theirs):
            cell.cell_contents = _own(theirs.cell_contents, memo)
    return ours


def _is_empty(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - asked for the error alone
    except ValueError:
        return True
    return False
