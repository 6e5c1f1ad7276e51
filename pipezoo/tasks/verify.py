"""``task=verify``: train, and hold every number against one device, whatever ``verify`` says elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipezoo.experiment.experiment import Experiment
from pipezoo.tasks import train


def run(experiment: Experiment, folder: Path, print_line: Callable[[str], None]) -> dict[str, Any]:
    """As :func:`pipezoo.tasks.train.run`, always compared."""
    return train.run(replace(experiment, verify=True), folder, print_line)
