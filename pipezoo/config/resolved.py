"""What a config came to, in plain values. Nothing here knows of Hydra.

DictConfig  --config.resolved_config-->  ResolvedConfig  --resolve.build-->  Experiment
                                     picklable: may be composed in one process and run in another
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipezoo.experiment.allowlist import Allowlist

# What the caller adds to each part's arguments, and the class that its target must be a subclass of.
GIVEN = {
    "model": (),
    "data": ("batch_size", "seed"),
    "split": ("model", "num_stages", "example"),
    "schedule": ("num_ranks", "num_microbatches"),
    "optimizer": ("params",),
    "loss": (),
    "executor": (),
    "cost": ("num_stages", "stages_per_rank"),
    "launch": (),
    "plan": (),
    "checkpoint": (),
}
OPTIONAL: dict[str, tuple[str, ...]] = {
    "fault": (),
    "export": ("spec",),
    "eval": (),
    "tracker": ("folder", "config"),
    "lr_schedule": ("optimizer",),
    "precision": (),
    "profile": (),
    "topology": (),
    "mesh": (),
}  # that may have no option chosen
SECRET = 4  # characters that a value from the environment has at least, to be looked for in what is printed


@dataclass(frozen=True)
class ResolvedConfig:
    """A config, resolved.

    Args:
        values: by key; those of a group are a dict with ``_target_``.
        choices: which option of each group was chosen, by group.
        trust: whose code may be named besides ours.
        sources: by group, the arguments that repeat another key of the config, with that key.
        shown: the values as they are written down: what came from the environment stands as it was typed.
    """

    values: Mapping[str, Any]
    choices: Mapping[str, Any] = field(default_factory=dict)
    trust: Allowlist = field(default_factory=Allowlist)
    sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> str:
        return str(self.values.get("task"))

    def hide(self, text: str) -> str:
        """``text`` with what came from the environment as it was typed."""
        for value, typed in _unlike(self.values, self.shown):
            text = text if "${conf_dir:}" in typed else text.replace(value, typed)
        return text


def _unlike(values: Any, shown: Any) -> Iterator[tuple[str, str]]:
    """The texts that are not shown, and what is shown for them."""
    if isinstance(values, dict) and isinstance(shown, dict):
        for key in values:
            yield from _unlike(values[key], shown.get(key))
    elif isinstance(values, list) and isinstance(shown, list):
        for pair in zip(values, shown, strict=True):
            yield from _unlike(*pair)
    elif isinstance(values, str) and isinstance(shown, str) and values != shown and len(values) >= SECRET:
        yield values, shown
