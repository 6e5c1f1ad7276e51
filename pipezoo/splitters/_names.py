"""Modules of a model by their names."""

from __future__ import annotations

from difflib import get_close_matches

from torch import nn

from pipezoo.errors import ArgumentError

MOST_LISTED = 20


def find_module(model: nn.Module, name: str, argument: str) -> nn.Module:
    """The module called `name` in `model`; raises ValueError, naming `argument`, when there is none."""
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    del modules[""]
    if name in modules:
        return modules[name]
    outermost_first = sorted(modules, key=lambda known: known.count("."))
    listed = get_close_matches(str(name), modules) or outermost_first[:MOST_LISTED]
    more = ", ..." if len(listed) < len(modules) else ""
    raise ArgumentError(argument, name, f"{type(model).__name__} has no such module", f"{', '.join(listed)}{more}")


def chain_of(module: nn.Module) -> list[str]:
    """Names of the children of `module` in order, ModuleLists and Sequentials opened.

    A child under two names is listed twice.
    """
    children = [name for name, _ in module.named_modules(remove_duplicate=False) if name and "." not in name]
    return [opened for child in children for opened in opened_names(module, child)]


def opened_names(model: nn.Module, name: str) -> list[str]:
    """`name` itself, or the names of what the ModuleList or Sequential of that name holds."""
    module = model.get_submodule(name)
    if not isinstance(module, (nn.ModuleList, nn.Sequential)):
        return [name]
    return [f"{name}.{inner}" for inner in chain_of(module)]
