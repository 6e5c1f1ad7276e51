"""Optimizers without torch's compiler: each of them imports it to tell it to keep out, which takes as long as torch.

    torch.optim   import torch._dynamo      answered here, while an optimizer is made or steps:
                  disable(function)         the function itself, where it is torch's own
                  graph_break()             nothing
                  anything else             the compiler after all, imported now

Where it was imported already, by ``torch.compile`` or by a library, nothing is changed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import torch

NAME = "torch._dynamo"


class _AtRest(ModuleType):
    """What stands in the compiler's place."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.told: list[Any] = []  # the functions that it was to keep out of; torch remembers its answer on them

    def disable(self, fn: Any = None, *options: Any, **named: Any) -> Any:
        if not (isinstance(fn, FunctionType) and fn.__module__.partition(".")[0] == "torch"):
            return self.__getattr__("disable")(fn, *options, **named)
        self.told.append(fn)
        return fn

    @staticmethod
    def graph_break(*options: Any, **named: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(NAME) is self:
            _take_away(self)
        return getattr(importlib.import_module(NAME), name)


@contextmanager
def no_compiler() -> Iterator[None]:
    """Inside, torch's optimizers do not import its compiler. Nothing of it is left behind."""
    if NAME in sys.modules:
        yield
        return
    at_rest = _AtRest()
    sys.modules[NAME] = torch._dynamo = at_rest
    try:
        yield
    finally:
        _take_away(at_rest)


def _take_away(at_rest: _AtRest) -> None:
    if sys.modules.get(NAME) is at_rest:
        del sys.modules[NAME]
    if vars(torch).get("_dynamo") is at_rest:
        del torch._dynamo
    for function in at_rest.told:
        vars(function).pop("__dynamo_disable", None)
    at_rest.told.clear()
