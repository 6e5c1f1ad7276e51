"""``conf/`` is the registry: what its YAML files name at ``_target_`` is what pipezoo has to offer for that group."""

from __future__ import annotations

import re
from functools import cache

from pipezoo import conf_dir as conf_dir

TARGET = re.compile(r"^_target_:\s*([\w.]+)", re.MULTILINE)


@cache
def registered(group: str) -> frozenset[str]:
    """The dotted names that the YAML files of ``conf/<group>/`` have at ``_target_``; empty for an unknown group."""
    files = (conf_dir() / group).glob("*.yaml") if group.isidentifier() else ()
    return frozenset(name for file in files for name in TARGET.findall(file.read_text(encoding="utf-8")))
