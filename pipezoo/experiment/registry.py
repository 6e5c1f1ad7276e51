"""``conf/`` is the registry: what its YAML files name at ``_target_`` is what pipezoo has to offer for that group."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

TARGET = re.compile(r"^_target_:\s*([\w.]+)", re.MULTILINE)


def conf_dir() -> Path:
    """The folder of the YAML files: beside the package in a clone, inside it where a wheel was installed."""
    here = Path(__file__).resolve().parent.parent
    clone = here.parent / "conf"
    if (here.parent / "pyproject.toml").is_file() and (clone / "config.yaml").is_file():
        return clone
    return here / "conf"


@cache
def registered(group: str) -> frozenset[str]:
    """The dotted names that the YAML files of ``conf/<group>/`` have at ``_target_``; empty for an unknown group."""
    files = (conf_dir() / group).glob("*.yaml") if group.isidentifier() else ()
    return frozenset(name for file in files for name in TARGET.findall(file.read_text(encoding="utf-8")))
