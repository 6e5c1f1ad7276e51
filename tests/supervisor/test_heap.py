"""What the C library does with memory in a rank."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipezoo.supervisor.heap import HUGE_PAGES

MAY_ADVISE = HUGE_PAGES.is_file() and "[madvise]" in HUGE_PAGES.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has these settings")
@pytest.mark.parametrize(("environment", "kept"), [({}, True), ({"MALLOC_ARENA_MAX": "2"}, False)])
def test_what_is_freed_is_kept_for_the_next_step(environment: dict[str, str], kept: bool) -> None:
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
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    ended = subprocess.run(
        [sys.executable, "-c", program], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    said, count = ended.stdout.split()
    assert said == str(kept)
    if kept:
        assert int(count) < 1000


@pytest.mark.skipif(not MAY_ADVISE, reason="the system gives no huge pages to who asks for them")
def test_what_a_step_makes_lies_on_huge_pages() -> None:
    """KiB on huge pages after 64 tensors of a megabyte; and what the room for more takes, while nobody uses it."""
    program = (
        "import torch; from pipezoo.supervisor.heap import keep_freed_memory\n"
        "def told(word): return sum(int(l.split()[1]) for l in open('/proc/self/smaps') if l.startswith(word + ':'))\n"
        "before = told('Rss')\n"
        "keep_freed_memory()\n"
        "after = told('Rss')\n"
        "held = [torch.zeros(2**18) for _ in range(64)]\n"
        "print(told('AnonHugePages'), after - before)\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    ended = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=True)
    huge, room = map(int, ended.stdout.split())
    assert huge >= 48 * 1024
    assert room < 4 * 1024
