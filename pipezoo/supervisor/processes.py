"""Child processes that cannot outlive their parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import util
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1
ENDING = (signal.SIGINT, signal.SIGTERM)
NOT_INITIALIZED = 3  # what the functions of CUDA's driver return before cuInit


def die_with_parent(parent: int) -> None:
    """Have this process killed when ``parent``, the process that started it, dies in whatever way.

    Linux does it in the kernel. Elsewhere a thread looks every half second whether the parent changed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(0.5)
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def end_with_starter() -> None:
    """Have this process told to end (SIGTERM) when the one that started it dies in whatever way. Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM wait for the end of the block. A child that is forked in it lets them come by itself.

    What their handlers raise while ``os.fork`` runs its hooks, Python prints and drops.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_signals_come() -> None:
    """In a child that was started while they were held."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def exit_now(code: int) -> NoReturn:
    """End this process now: no teardown, which takes longer than a short run, and no waiting for stray threads."""
    _forget_semaphores()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _forget_semaphores() -> None:
    """Unlink the named semaphores that libraries made in this process; who leaves them is warned about at the end."""
    if "multiprocessing.synchronize" in sys.modules:
        for finalizer in list(util._finalizer_registry.values()):  # type: ignore[attr-defined]
            if finalizer._callback is sys.modules["multiprocessing.synchronize"].SemLock._cleanup:
                with contextlib.suppress(OSError):
                    finalizer()


def death(code: int | None) -> str:
    """How a process ended, from its exit code (minus the signal), in words."""
    if code is None:
        return "closed its line without a word"
    if code < 0:
        name = signal.Signals(-code).name if -code in {*signal.Signals} else f"signal {-code}"
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"left early with exit code {code}"


def is_stopped(pid: int) -> bool:
    """Whether a process is halted (SIGSTOP, a debugger). False where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


def gpu_driver_started(maps: Path = Path("/proc/self/maps"), driver: str = "libcuda.so.1") -> bool:
    """Whether somebody in this process has called ``cuInit``, of which torch need not know: no fork survives it."""
    try:
        if driver.partition(".so")[0] not in maps.read_text(errors="replace"):
            return False  # nor is it loaded by us
        return bool(ctypes.CDLL(driver).cuDeviceGetCount(ctypes.byref(ctypes.c_int())) != NOT_INITIALIZED)
    except (OSError, AttributeError):
        return False


def end_monitors() -> None:
    """End the threads of tqdm that watch its bars: they only wait, and each new bar starts one anew.

    torch's interpreter of traces makes a bar in every run, as do libraries that load models and data.
    """
    for thread in threading.enumerate():
        if type(thread).__module__ == "tqdm._monitor":
            thread.exit()  # type: ignore[attr-defined]
            thread.tqdm_cls.monitor = None  # type: ignore[attr-defined]


def unsafe_to_fork() -> str:
    """Why this process had better not be forked; "" where nothing speaks against it."""
    if not hasattr(os, "fork"):
        return "this system has no fork"
    if sys.platform == "darwin":
        return "macOS' own libraries do not survive a fork"
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        return "CUDA is in use"
    if gpu_driver_started():
        return "CUDA was started by something that was imported"
    if others := [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]:
        return f"other threads run ({others[0]})"
    return ""
