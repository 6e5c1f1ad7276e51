"""Whose code runs besides pipezoo's and torch's, and by which word of the command line: for the start-up lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from pipezoo.experiment.allowlist import OURS, TORCH, Allowlist, place_of
from pipezoo.experiment.component import Component
from pipezoo.experiment.experiment import Experiment


def foreign_code(experiment: Experiment) -> list[str]:
    """``my_package is ../my_package, by --config-dir``: one text for each package of the user's."""
    found: dict[str, Allowlist] = {}
    for field in fields(experiment):
        value = getattr(experiment, field.name)
        for component in value if isinstance(value, tuple) else (value,):
            if isinstance(component, Component):
                roots = {target.partition(".")[0] for target in (component.target, *_nested(component.arguments))}
                found |= dict.fromkeys(sorted(roots - {OURS, TORCH}), component.trust)
    return [f"{root} is {place_of(root)}, by {trust.word_for(root)}" for root, trust in found.items()]


def _nested(node: Any) -> Iterator[str]:
    for value in node.values() if isinstance(node, dict) else ():
        if isinstance(value, dict) and isinstance(value.get("_target_"), str):
            yield value["_target_"]
            yield from _nested(value)
