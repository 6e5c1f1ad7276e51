"""What of ``outputs/`` is committed: what another clone needs to run it again, and what came out. Nothing else."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pipezoo.errors import OutputError
from pipezoo.results.run_dir import write_text

OUTPUTS = "outputs"
GITIGNORE = """\
# What `git add outputs` takes of a run: what was asked, the order that ran, what came out. The rest stays here.
*
!.gitignore
!*/
.before/
!**/.hydra/*
!config.yaml
!result.json
!schedule.csv
!schedule.csv.gz
!sweep.json
!sweep.csv
!**/conf/**
"""


def write_gitignore(folder: Path) -> None:
    """Put ``.gitignore`` into a new ``outputs/`` that holds nothing but ``folder``; never into one that is older."""
    here = Path.cwd().resolve()
    real = folder.resolve()
    if not real.is_relative_to(here / OUTPUTS):
        return
    top = here / OUTPUTS
    with suppress(OSError, OutputError):
        if not (top / ".gitignore").exists() and _leads_alone(top, real):
            write_text(top / ".gitignore", GITIGNORE)


def _leads_alone(top: Path, folder: Path) -> bool:
    """Whether every folder from ``top`` down to ``folder`` holds the next one and nothing else."""
    while top != folder:
        step = folder.relative_to(top).parts[0]
        if [entry.name for entry in top.iterdir()] != [step]:
            return False
        top = top / step
    return True
