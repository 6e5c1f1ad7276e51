"""``conf/`` is the registry: what its YAML files name at ``_target_`` is what pipezoo has to offer for that group."""

from __future__ import annotations

import re
from functools import cache

from pipezoo.installed import conf_dir as conf_dir

TARGET = re.compile(r"^_target_:\s*([\w.]+)", re.MULTILINE)
OF_TASKS = {"schedule": {"pipezoo.profiling.stage_profiler.both_ways"}}  # what no file names, but a task of ours does


@cache
def registered(group: str) -> frozenset[str]:
    """The dotted names that the YAML files of ``conf/<group>/`` have at ``_target_``, and ``OF_TASKS``."""
    files = (conf_dir() / group).glob("*.yaml") if group.isidentifier() else ()
    named = {name for file in files for name in TARGET.findall(file.read_text(encoding="utf-8"))}
    return frozenset(named | OF_TASKS.get(group, set()))
