"""Dataclasses whose fields have a meaning and a unit: written as plain values, and read from whatever is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import field
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pipezoo.results.sweep_table import number


def key(meaning: str, unit: str = "") -> Any:
    """A field that is None where it does not apply."""
    return field(default=None, metadata={"meaning": meaning, "unit": unit})


def plain(value: Any) -> Any:
    """A dataclass as dicts, without what does not apply."""
    if not dataclasses.is_dataclass(value):
        return value
    pairs = ((one.name, getattr(value, one.name)) for one in dataclasses.fields(value) if one.name != "others")
    return {name: plain(content) for name, content in pairs if content is not None}


def fit(kind: Any, value: Any) -> Any:
    """``value`` as ``kind``, None where it is none; numbers that JSON cannot hold come back from their words."""
    if get_origin(kind) in (Union, UnionType):
        fitted = (fit(choice, value) for choice in get_args(kind) if choice is not type(None))
        return next((found for found in fitted if found is not None), None)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            return None
        hints = get_type_hints(kind)
        names = [one.name for one in dataclasses.fields(kind) if one.name in value]
        return kind(**{name: fit(hints[name], value[name]) for name in names})  # type: ignore[operator]
    if kind is float:
        return number(value)
    if get_origin(kind) is list:
        (entry,) = get_args(kind)
        return [fit(entry, one) for one in value] if isinstance(value, list) else None
    plain = get_origin(kind) or kind
    if plain is int and isinstance(value, bool):
        return None
    return value if isinstance(value, plain) else None


def rows(kind: Any, above: str = "") -> Iterator[tuple[str, str, str]]:
    """The name, the meaning and the unit of every field, those of inner dataclasses as well."""
    hints = get_type_hints(kind)
    for one in dataclasses.fields(kind):
        if one.name == "others":
            continue
        inside = next((choice for choice in get_args(hints[one.name]) if dataclasses.is_dataclass(choice)), None)
        if inside is None:
            yield f"`{above}{one.name}`", one.metadata["meaning"], one.metadata["unit"]
        else:
            yield from rows(inside, f"{above}{one.name}.")
