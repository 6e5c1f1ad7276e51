"""What is needed of a command line before any config is composed, or where none is: as it was typed, or the default."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from pipezoo.config.overrides import key_of
from pipezoo.launch.world import MOST_PORT
from pipezoo.supervisor.start_deadline import DEFAULT


def start_timeout(words: Sequence[str]) -> float:
    """Seconds for all that is done before the first process starts."""
    for word in reversed(words):
        if key_of(word) == "launch.start_timeout":
            with suppress(ValueError):
                return max(0.0, float(word.partition("=")[2]))
    return DEFAULT


def world_port(words: Sequence[str]) -> int | None:
    """``launch.port``, which every process of a world has to know; None where it is none that will do."""
    for word in reversed(words):
        if key_of(word) == "launch.port" and (text := word.partition("=")[2]).isdigit():
            return int(text) if 0 < int(text[:6]) <= MOST_PORT else None
    return None
