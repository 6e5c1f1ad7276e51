"""Whether a process may be forked, and why not."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipezoo.supervisor.processes import death, gpu_driver_started, unsafe_to_fork

DRIVER = "int cuDeviceGetCount(int *count) {{ *count = 1; return {code}; }}"


def test_a_second_thread_speaks_against_a_fork() -> None:
    assert unsafe_to_fork() == ("macOS' own libraries do not survive a fork" if sys.platform == "darwin" else "")
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="theirs")
    thread.start()
    try:
        assert "theirs" in unsafe_to_fork() or sys.platform == "darwin"
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize(("code", "started"), [(0, True), (100, True), (3, False)])
def test_a_gpu_that_somebody_started_speaks_against_it(tmp_path: Path, code: int, started: bool) -> None:
    (tmp_path / "driver.c").write_text(DRIVER.format(code=code))
    library = tmp_path / "libcuda-of-a-test.so.1"
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "driver.c"], check=True)
    except OSError:
        pytest.skip("needs a C compiler")
    maps = tmp_path / "maps"
    maps.write_text(f"7f00-7f01 r-xp 00000000 00:00 0 {library}\n")
    assert gpu_driver_started(maps, str(library)) is started


def test_where_no_driver_is_loaded_nobody_has_started_it(tmp_path: Path) -> None:
    (tmp_path / "maps").write_text("7f00-7f01 r-xp 00000000 00:00 0 /usr/lib/libc.so.6\n")
    assert not gpu_driver_started(tmp_path / "maps")
    assert not gpu_driver_started(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "closed its line without a word"),
        (0, "left early with exit code 0"),
        (-9, "was killed by SIGKILL (out of memory?)"),
        (-11, "was killed by SIGSEGV"),
    ],
)
def test_how_a_process_ended_is_said_in_words(code: int | None, words: str) -> None:
    assert death(code) == words
