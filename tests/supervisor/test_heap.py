"""What the C library does with memory in a rank, which is a fork of a process that has imported torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pipezoo.supervisor.heap import HUGE_PAGES, MALLOC_WORDS
from tests.support.command import Script
from tests.support.command_line import run_cold

MAY_ADVISE = HUGE_PAGES.is_file() and "[madvise]" in HUGE_PAGES.read_text()


def said_by(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> list[str]:
    """The words that a program prints in a fork of this process."""
    for name in [name for name in os.environ if name.startswith(MALLOC_WORDS)]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (folder / "program.py").write_text(program)
    ended = Script(folder, ("program.py",)).start().wait()
    assert ended.code == 0, ended.err
    return ended.out.split()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has these settings")
@pytest.mark.parametrize(("environment", "kept"), [({}, True), ({"MALLOC_ARENA_MAX": "2"}, False)])
def test_what_is_freed_is_kept_for_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], kept: bool
) -> None:
    """Page faults of the fifth time that 64 tensors of a megabyte are made: 256 each, where they are mapped anew."""
    program = (
        "import resource, torch; from pipezoo.supervisor.heap import keep_freed_memory as keep\n"
        "print(keep())\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for turn in range(5):\n"
        "    before = faults()\n"
        "    [torch.zeros(2**18) for _ in range(64)]\n"
        "print(faults() - before)\n"
    )
    said, count = said_by(tmp_path, program, monkeypatch, environment)
    assert said == str(kept)
    if kept:
        assert int(count) < 1000


@pytest.mark.skipif(not MAY_ADVISE, reason="the system gives no huge pages to who asks for them")
def test_what_a_step_makes_lies_on_huge_pages(tmp_path: Path) -> None:
    """KiB on huge pages after 64 tensors of a megabyte; and what the room for more takes, while nobody uses it.

    In a new process: where much was freed before, the tensors lie there.
    """
    program = (
        "import torch; from pipezoo.supervisor.heap import keep_freed_memory\n"
        "def told(word): return sum(int(l.split()[1]) for l in open('/proc/self/smaps') if l.startswith(word + ':'))\n"
        "before = told('Rss')\n"
        "keep_freed_memory()\n"
        "after = told('Rss')\n"
        "held = [torch.zeros(2**18) for _ in range(64)]\n"
        "print(told('AnonHugePages'), after - before)\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(MALLOC_WORDS)}
    huge, room = map(int, run_cold(["-c", program], tmp_path, clean, 100.0).out.split())
    assert huge >= 48 * 1024
    assert room < 4 * 1024
