"""The folder that somebody means who names none: the newest one in ``outputs/``."""

from __future__ import annotations

from pathlib import Path

from pipezoo.errors import ConfigError
from pipezoo.results.run_dir import RESULT

OUTPUTS = "outputs"


def newest_run(outputs: str | Path = OUTPUTS) -> Path:
    """The folder ``outputs/DAY/TIME`` whose ``result.json`` changed last; runs of sweeps are left out.

    Raises:
        ConfigError: there is none.
    """
    found = [(file.stat().st_mtime, file.parent) for file in Path(outputs).glob(f"*/*/{RESULT}")]
    if not found:
        raise ConfigError(f"folder: none is named, and {outputs}/ here holds no run")
    return max(found)[1]
