"""What is to be run, and where: what Hydra's config becomes, and what a process of a sweep is handed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipezoo.config.resolve import build
from pipezoo.config.resolved import ResolvedConfig
from pipezoo.errors import ConfigError
from pipezoo.experiment.experiment import Experiment

OVERRIDES = ".hydra/overrides.yaml"  # what was typed


@dataclass(frozen=True)
class Request:
    """What is to be run, and where: plain values, so that one process may ask another for it.

    Args:
        resolved: what the config says, or why it says nothing that could be run.
        folder: of this run.
        files: what is written into the folder beforehand as YAML, by name: the config as composed, in plain values.
        title: what tells a run of a sweep from the others.
        sweep: the folder of the sweep that it is one of.
        goes_on: the sweep was begun before, and what is done stays.
        notes: what a person may have meant otherwise, a line each.
        words: the whole command line that asks for it.
        since: when it was asked for, in seconds of ``time.time``; the folder was made just before.
    """

    resolved: ResolvedConfig | ConfigError
    folder: Path
    files: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    sweep: Path | None = None
    goes_on: bool = False
    notes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    since: float = field(default_factory=time.time)

    @property
    def values(self) -> Mapping[str, Any]:
        return {} if isinstance(self.resolved, ConfigError) else self.resolved.values

    @property
    def objective(self) -> str:
        """The key of the result that a sweeper wants."""
        return str(self.values.get("objective", "step_seconds"))

    def experiment(self) -> Experiment:
        """Raises ConfigError, before torch is imported where that can be."""
        if isinstance(self.resolved, ConfigError):
            raise self.resolved
        return build(self.resolved)

    def hide(self, text: str) -> str:
        """``text`` without what came from the environment."""
        return text if isinstance(self.resolved, ConfigError) else self.resolved.hide(text)
