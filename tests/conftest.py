"""What tests share: the command line as a process of its own, and the certainty that it left none behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
REPOSITORY = Path(__file__).resolve().parent.parent
MARK = "PIPEZOO_TEST"  # an environment variable that every process below a test inherits


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def error_lines(self) -> list[str]:
        return self.err.splitlines()


CommandLine = Callable[..., Ended]


@pytest.fixture
def mark() -> str:
    """The value of ``MARK`` in this test's processes."""
    return uuid.uuid4().hex


@pytest.fixture
def environment(mark: str) -> dict[str, str]:
    """What a process of this test finds in its environment: the package, wherever it runs."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, MARK: mark}


@pytest.fixture
def cli(tmp_path: Path, environment: dict[str, str], no_process_left: None) -> CommandLine:
    """``cli("steps=3", "stages=2")`` runs ``python -m pipezoo steps=3 stages=2`` in an empty folder, ``tmp_path``."""

    def run(*words: str, module: str = "pipezoo", cwd: Path = tmp_path, timeout: float = 100.0) -> Ended:
        began = time.monotonic()
        command = [sys.executable, "-m", module, *words]
        ended = subprocess.run(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr, time.monotonic() - began)

    return run


@pytest.fixture
def no_process_left(mark: str) -> Iterator[None]:
    """Fails a test whose processes are not all gone half a second after it."""
    yield
    deadline = time.monotonic() + 0.5
    while (left := processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left


def processes_with(mark: str) -> dict[int, str]:
    """The command lines of the living processes that carry ``mark``, by process id. Empty where there is no /proc."""
    found = {}
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it ended, or is not ours
            continue
    return found


@pytest.fixture
def pipeline(tmp_path: Path) -> Callable[..., Any]:
    """``pipeline(model, schedule)``: ready to run, its processes' files in ``tmp_path``."""
    from tests.support.pipelines import build_pipeline

    return partial(build_pipeline, tmp_path)
