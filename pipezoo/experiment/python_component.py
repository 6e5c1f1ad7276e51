"""A part of an experiment that is a Python object of the caller's own, where a config would name one.

Component("model", "gpt", "pipezoo.models.GPT", {...})        a name and its arguments, from a config
PythonComponent("model", "Net", made=lambda: net)             what is called, as it stands
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.experiment.component import Component


@dataclass(frozen=True)
class PythonComponent(Component):
    """Called as ``made``; what it raises is a ConfigError that begins with ``group=choice``.

    Args:
        made: what is called, with what a caller of the part adds: ``made(params=...)`` for an optimizer.
    """

    target: str = ""
    made: Callable[..., Any] | None = None

    @property
    def function(self) -> Callable[..., Any]:  # type: ignore[override]
        assert self.made is not None
        return self.made

    def check(self) -> None:
        """There are no arguments to look at."""

    def reword(self, error: Exception, given: Any = None) -> ConfigError:
        """``error`` as one line; the traceback below it is that of the caller's own code."""
        if type(error) is ConfigError:
            return error
        text = " ".join(str(error).split()) or "no reason given"
        if not isinstance(error, ValueError):
            text = f"{type(error).__name__}: {text[:300]}"
        return ConfigError(
            f"{self.group}={self.choice}: {text}", error if isinstance(error, ArgumentError) else None, text
        )
