"""Command lines of a test: in a new interpreter, or forked from a warm parent."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


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


def run_cold(words: list[str], cwd: Path, environment: dict[str, str], timeout: float) -> Ended:
    """``python words...`` in a new interpreter."""
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr, time.monotonic() - began)


class WarmParent:
    """The process of tests/support/warm_parent.py, which lives as long as the tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = str(folder / "socket")
        self._number = 0
        command = [sys.executable, "-m", "tests.support.warm_parent", self._path]
        self._process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "warm\n"

    def start(self, module: str, words: tuple[str, ...], cwd: Path, environment: dict[str, str]) -> Warm:
        """Start ``python -m module words...`` in the folder ``cwd``."""
        self._number += 1
        return Warm(self._path, self._folder / str(self._number), module, words, cwd, environment)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


class Warm:
    """A command line that a warm parent has forked."""

    def __init__(
        self, path: str, files: Path, module: str, words: tuple[str, ...], cwd: Path, environment: dict[str, str]
    ) -> None:
        self._began = time.monotonic()
        self._words = words
        self._out, self._err = files.with_suffix(".out"), files.with_suffix(".err")
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(path)
        self._lines = self._connection.makefile("rw")
        request = {
            "module": module,
            "words": [*map(str, words)],
            "cwd": str(cwd),
            "environment": environment,
            "out": str(self._out),
            "err": str(self._err),
        }
        self._lines.write(json.dumps(request) + "\n")
        self._lines.flush()
        self.pid = int(self._lines.readline())

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 100.0) -> Ended:
        """Until it has ended, and all that it started. Fails after ``timeout`` seconds, or if something outlives it."""
        self._connection.settimeout(timeout)
        try:
            told = json.loads(self._lines.readline())
        except TimeoutError:
            os.killpg(self.pid, signal.SIGKILL)
            raise AssertionError(f"still running after {timeout:g} s: {self._words}\n{self._err.read_text()}") from None
        finally:
            self._connection.close()
        ended = Ended(told["code"], self._out.read_text(), self._err.read_text(), time.monotonic() - self._began)
        assert not told["left"], f"outlived {self._words}: {told['left']}"
        return ended
