"""docs/laptop-to-cluster.md as it stands: one machine, torchrun, srun on two nodes and a job of Slurm, equal losses."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.command_line import Ended
from tests.support.documents import Block, blocks
from tests.support.slurm import Slurm
from tests.test_docs import resembles, write_files

DOCUMENT = (REPOSITORY / "docs" / "laptop-to-cluster.md").read_text(encoding="utf-8")
OURS = "python -m pipezoo "


@pytest.mark.timeout(240)
def test_the_same_words_come_to_the_same_losses_everywhere(
    slurm: Slurm, cli: Callable[..., Ended], environment: dict[str, str], tmp_path: Path
) -> None:
    environment.update(slurm.environment, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    write_files(DOCUMENT, tmp_path)
    run = 0
    for block in of_a_cluster():
        for example in block.commands():
            code, printed, said = ended(example.command, cli, environment, tmp_path)
            assert code == 0, f"{example.command}\n{said}{printed}"
            check_lines(example.lines, printed)
            run += 1
        if block.language == "python":
            subprocess.run([sys.executable, "-c", block.body], cwd=tmp_path, env=environment, check=True)
    assert run == 4
    slurm.wait_until(lambda: not slurm.jobs(), 20.0)


def of_a_cluster() -> list[Block]:
    return [block for block in blocks(DOCUMENT) if block.test == "cluster"]


def ended(command: str, cli: Callable[..., Ended], environment: dict[str, str], folder: Path) -> tuple[int, str, str]:
    """How a command ends, and what it prints; pipezoo's own in a warm process."""
    if command.startswith(OURS):
        warm = cli(*shlex.split(command.removeprefix(OURS)))
        return warm.code, warm.out, warm.err
    done = subprocess.run(
        shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def check_lines(shown: list[str], printed: str) -> None:
    """What the document shows is in what is printed, in this order."""
    rest = printed.splitlines()
    for line in shown:
        if line.strip() not in ("...", ""):
            at = next((at for at, other in enumerate(rest) if resembles(line, other)), None)
            assert at is not None, f"{line!r} is not in the rest of:\n{printed}"
            rest = rest[at + 1 :]
