"""Where a module of a stage stands in the unsplit model, also where the stage holds a copy or a trace of it.

The address is the name of `named_modules`. A module that the model holds under several names has the first of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

ADDRESS = "address_in_model"  # an attribute of every module of a model that is to be split; copies have it too


def write_addresses(model: nn.Module) -> None:
    """Note in each module of `model` where it stands."""
    for name, module in model.named_modules():
        setattr(module, ADDRESS, name)


def addresses(stage: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of `stage` with their addresses; modules that are none of the model's are left out."""
    for module in stage.modules():
        if callable(traced := getattr(module, "addresses_in_model", None)):
            yield from traced()
        elif ADDRESS in vars(module):
            yield vars(module)[ADDRESS], module


def first_names(model: nn.Module) -> dict[str, str]:
    """The address of a module by each name that the model has for it."""
    first = {id(module): name for name, module in model.named_modules()}
    return {name: first[id(module)] for name, module in model.named_modules(remove_duplicate=False)}


def of_trace(path: str) -> str:
    """The name in the model of a module in a trace, which numbers calls: `lin@1` is the second one of `lin`."""
    return re.sub(r"@\d+", "", path)
