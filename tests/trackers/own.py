"""Trackers of the tests, each a `_target_`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Notes:
    """Writes down what it is told."""

    def __init__(self, folder: str, config: Mapping[str, Any]) -> None:
        self._path = Path(folder) / "notes.txt"
        self._path.write_text(f"{config['model']}\n")

    def step(self, step: int, values: Mapping[str, float]) -> None:
        with self._path.open("a") as file:
            file.write(f"{step} {values['loss']}\n")

    def end(self, result: Mapping[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(f"{result['status']}\n")


class Failing:
    def __init__(self, when: int = 0) -> None:
        self._when = when

    def step(self, step: int, values: Mapping[str, float]) -> None:
        if step == self._when:
            raise RuntimeError("no\nnetwork")


class Slow:
    def step(self, step: int, values: Mapping[str, float]) -> None:
        time.sleep(60)


def nowhere() -> object:
    return object()


nowhere.needs = "package_that_nobody_has"  # type: ignore[attr-defined]
