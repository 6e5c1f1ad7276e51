"""What of pipezoo is not code: where its YAML files are, and its version."""

from __future__ import annotations

import re
from functools import cache
from importlib import metadata
from pathlib import Path


@cache
def conf_dir() -> Path:
    """The folder of the YAML files: beside the package in a clone, inside it where a wheel was installed."""
    here = Path(__file__).resolve().parent
    clone = here.parent / "conf"
    if (here.parent / "pyproject.toml").is_file() and (clone / "config.yaml").is_file():
        return clone
    return here / "conf"


def version() -> str:
    """That of the clone that this is, else that of the installed distribution."""
    project = conf_dir().parent / "pyproject.toml"
    if project.is_file():
        found = re.search(r'^version = "(.+)"$', project.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return metadata.version("pipezoo")
