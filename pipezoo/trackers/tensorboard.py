"""TensorBoard: ``tensorboard --logdir outputs`` shows the runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any


class TensorBoard:
    """Scalars by step, and what the run was at its end.

    Args:
        writer: a ``SummaryWriter``.
        config: numbers and words that say what runs.
    """

    def __init__(self, writer: Any, config: Mapping[str, Any]) -> None:
        self._writer = writer
        rows = "\n".join(f"| {name} | {value} |" for name, value in config.items())
        writer.add_text("config", f"| key | value |\n|---|---|\n{rows}", 0)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, result: Mapping[str, Any]) -> None:
        self._writer.add_text("result", f"{result.get('status')}, verified: {result.get('verified')}", 0)
        self._writer.close()


def tensorboard(folder: str, config: Mapping[str, Any], path: str | None = None) -> TensorBoard:
    """Event files in ``path``; None: in ``tensorboard`` of the run's folder."""
    writer = import_module("torch.utils.tensorboard").SummaryWriter(path or f"{folder}/tensorboard")
    return TensorBoard(writer, config)


tensorboard.needs = "tensorboard"  # type: ignore[attr-defined]
