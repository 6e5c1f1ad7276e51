"""Weights & Biases: offline by default, in the run's folder; ``wandb sync`` sends it later."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal


class WandB:
    """A run of theirs for a run of ours."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def step(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def end(self, result: Mapping[str, Any]) -> None:
        for name in ("status", "verified"):
            self._run.summary[name] = result.get(name)
        self._run.finish(exit_code=0 if result.get("status") == "ok" else 1)


def wandb(
    folder: str,
    config: Mapping[str, Any],
    project: str = "pipezoo",
    name: str | None = None,
    mode: Literal["offline", "online"] = "offline",
) -> WandB:
    """A run in ``project``; ``online`` needs their login."""
    settings = {"project": project, "name": name, "mode": mode, "dir": folder, "config": dict(config)}
    return WandB(import_module("wandb").init(**settings))


wandb.needs = "wandb"  # type: ignore[attr-defined]
