"""Where a run ran: git commit of the working folder, host, processor, GPU, versions. Cheap, and never an error."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from pipezoo.installed import version

PATIENCE = 2.0  # seconds that git may take
CPUS, GPUS = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/gpus")
PACKAGES = ("numpy", "torch")  # whose versions are told where this process uses them


def provenance() -> dict[str, Any]:
    """What a reader of the results needs in order to trust them, under keys of ``result.json``.

    ``git`` is None where the working folder is in no repository, or git is not there to tell; ``gpus`` are those of the
    machine, whether the run used them or not. Starts no CUDA, and writes nothing.
    """
    return {"git": _git(), "host": platform.node(), "cpu": _cpu(), "gpus": _gpus(), "versions": versions()}


def versions() -> dict[str, str]:
    """Of pipezoo, Python, and the packages that this process has imported."""
    found = {"pipezoo": version(), "python": platform.python_version()}
    for name in PACKAGES:
        if name in sys.modules:
            found[name] = str(getattr(sys.modules[name], "__version__", "")) or metadata.version(name)
    return found


def _git() -> dict[str, Any] | None:
    """The commit that is checked out, and whether a file that git knows was changed since."""
    if (git := shutil.which("git")) is None:
        return None
    command = [git, "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    quiet = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        told = subprocess.run(
            command, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=True, text=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    lines = told.stdout.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    if commit == "(initial)":
        return None
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def _cpu() -> dict[str, Any]:
    names = [line.partition(":")[2].strip() for line in _text(CPUS).splitlines() if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"name": names[0] if names else platform.processor() or platform.machine(), "cores": cores}


def _gpus() -> list[str]:
    """The models that the driver knows: asking CUDA would start it, and a process that has started it cannot fork."""
    texts = [_text(path) for path in sorted(GPUS.glob("*/information"))] if GPUS.is_dir() else []
    lines = [line for text in texts for line in text.splitlines() if line.startswith("Model:")]
    return [line.partition(":")[2].strip() for line in lines]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
