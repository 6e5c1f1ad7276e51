"""Whether a process may be forked, and why not."""

from __future__ import annotations

import logging.handlers
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipezoo.runtime.start_method import start_method
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


class Bars:
    """What a tqdm bar class knows of its monitor."""

    monitor: threading.Thread | None = None


class StandInMonitor(threading.Thread):
    """As tqdm's own: it waits until it is told to go."""

    def __init__(self) -> None:
        super().__init__(name="tqdm_monitor", daemon=True)
        self.tqdm_cls, self.killed = Bars, threading.Event()
        Bars.monitor = self
        self.start()

    def run(self) -> None:
        self.killed.wait(60.0)

    def exit(self) -> None:
        self.killed.set()
        self.join()


StandInMonitor.__module__ = "tqdm._monitor"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS never forks")
def test_the_monitor_of_progress_bars_does_not_speak_against_a_fork() -> None:
    StandInMonitor()
    assert "tqdm_monitor" in unsafe_to_fork()
    assert start_method(None) == ("fork", "")
    assert start_method("fork") == ("fork", "")
    assert Bars.monitor is None
    assert threading.active_count() == 1


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS never forks")
def test_nor_does_tqdm_itself() -> None:
    tqdm = pytest.importorskip("tqdm")
    for _ in range(2):  # a bar after the monitor has ended starts one anew
        with tqdm.tqdm(total=1, disable=False, file=open("/dev/null", "w")):
            assert "tqdm_monitor" in unsafe_to_fork()
            assert start_method(None) == ("fork", "")


@contextmanager
def a_pool() -> Iterator[None]:
    with ThreadPoolExecutor(1, thread_name_prefix="pool") as pool:
        pool.submit(int).result()
        yield


@contextmanager
def a_timer() -> Iterator[None]:
    timer = threading.Timer(60.0, int)
    timer.name = "timer"
    timer.start()
    yield
    timer.cancel()
    timer.join()


@contextmanager
def a_log_listener() -> Iterator[None]:
    listener = logging.handlers.QueueListener(queue.Queue())
    listener.start()
    yield
    listener.stop()


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS never forks")
@pytest.mark.parametrize("library", [a_pool, a_timer, a_log_listener], ids=lambda library: library.__name__)
def test_threads_that_may_hold_a_lock_speak_against_it(library: Callable[[], object]) -> None:
    with library():  # type: ignore[attr-defined]
        method, why = start_method(None)
    assert method == "spawn"
    assert why.startswith("other threads run (")
    assert start_method(None) == ("fork", "")


SPAWNED = """
import multiprocessing, os, sys
from pipezoo.supervisor.processes import exit_now

def work():
    global lock
    lock = multiprocessing.RLock()
    exit_now(0)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    process.join()
    os._exit(process.exitcode)
"""


def test_a_spawned_process_leaves_no_semaphore_behind(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "spawned.py").write_text(SPAWNED)
    ended = subprocess.run(
        [sys.executable, "spawned.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells it")
def test_a_process_is_told_to_end_when_its_starter_is_killed() -> None:
    code = """
import os, signal, time
from pipezoo.supervisor.processes import end_with_starter
told, tell = os.pipe()
if os.fork() == 0:
    end_with_starter()
    os.write(tell, b"ready")
    time.sleep(60)
    os._exit(1)
os.read(told, 5)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        began = time.monotonic()
        assert starter.stdout.read() == b""  # open until the last of the two is gone
    assert time.monotonic() - began < 30
