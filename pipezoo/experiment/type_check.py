"""Whether a plain value of a config is what an annotation asks for. A bool is no int here, and neither is 2.0."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

WORDS = {int: "an int", float: "a number", bool: "true or false", str: "text", type(None): "null", Path: "a path"}


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function's (or class's constructor's) parameters; empty where they cannot be evaluated."""
    where = function.__init__ if inspect.isclass(function) else function  # type: ignore[misc]
    try:
        return typing.get_type_hints(where)
    except Exception:  # a name that is only imported for type checkers, a forward reference ...
        return {}


def fit(value: Any, hint: Any, exactly: bool = False) -> bool:
    """Whether ``value`` is what ``hint`` says. A list may stand for a tuple unless ``exactly``.

    Annotations that say nothing about plain values (Any, type variables, protocols) are fitted by everything.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return fit(value, inner[0], exactly)
    if origin in (typing.Union, types.UnionType):
        return any(fit(value, option, exactly) for option in inner)
    if origin is typing.Literal:
        return value in inner
    if hint is None or hint is type(None):
        return value is None
    if hint in (int, float):
        numbers = (int, float) if hint is float else int
        return isinstance(value, numbers) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, (str, Path))
    if isinstance(value, str) and not isinstance(hint, typing.TypeVar):
        return hint in (str, object, Any) or (inspect.isclass(hint) and isinstance(value, hint))
    kind = origin or hint
    if kind is Any or not inspect.isclass(kind) or getattr(kind, "_is_protocol", False):
        return True
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    if kind in (Callable, type):
        return callable(value)
    if issubclass(kind, tuple):
        return _fit_tuple(value, inner, exactly)
    if kind is not str and isinstance(value, list) and issubclass(list, kind):
        return not inner or all(fit(item, inner[0], exactly) for item in value)
    return isinstance(value, kind)


def _fit_tuple(value: Any, inner: tuple[Any, ...], exactly: bool) -> bool:
    if not isinstance(value, tuple if exactly else (tuple, list)):
        return False
    if len(inner) == 2 and inner[1] is Ellipsis:
        return all(fit(item, inner[0], exactly) for item in value)
    return not inner or (len(inner) == len(value) and all(map(fit, value, inner)))


def expected_by(hint: Any) -> str:
    """``an int or null``: the annotation in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        plain = [option for option in inner if option in WORDS or _is_container(option)] or list(inner)
        words = (re.sub(r"^a list, each (.*)$", r"a list (each \1)", expected_by(option)) for option in plain)
        return " or ".join(dict.fromkeys(words))
    if origin is typing.Literal:
        return f"one of these; valid: {', '.join(map(str, inner))}"
    if origin is Callable:
        return "a part, {_target_: the dotted name of what makes it, its arguments ...}"
    if hint in WORDS:
        return WORDS[hint]
    if origin is tuple and Ellipsis not in inner:
        return f"a list of {len(inner)}: [{', '.join(map(expected_by, inner))}]"
    if inspect.isclass(kind := origin or hint) and issubclass(kind, Mapping):
        return "a dict"
    if inspect.isclass(origin) and inner:
        return f"a list, each {expected_by(inner[0])}"
    return f"a {getattr(origin or hint, '__name__', str(hint))}"


def _is_container(hint: Any) -> bool:
    kind = typing.get_origin(hint) or hint
    return inspect.isclass(kind) and issubclass(kind, (list, tuple, Sequence, Mapping)) and kind is not str
