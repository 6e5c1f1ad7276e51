"""Two machines on one: each has a network, a host name and mounts of its own, and one cable runs between them.

nodea 10.99.0.1 ───cable─── nodeb 10.99.0.2        folder/         what nodea sees as its folder, and nodeb too
                                                   folder-of-b/    what nodeb sees in its place where it is not shared

Needs root and iproute2. The namespaces have names of their own, and are gone at the end with all that ran in them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.command_line import REPOSITORY

PORT = 29400  # of nodea, whose network is nobody else's
HOSTS = "127.0.0.1 localhost\n10.99.0.1 nodea\n10.99.0.2 nodeb\n"


def why_no_machines() -> str:
    """Why namespaces cannot be made here; "" where they can."""
    if missing := [name for name in ("ip", "unshare", "mount") if shutil.which(name) is None]:
        return f"{missing[0]} is not installed (Debian: iproute2, util-linux)"
    if os.geteuid() != 0:
        return "namespaces are made as root"
    name = f"pz{secrets.token_hex(4)}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"no network namespace: {tried.stderr.strip()}"
    tried = subprocess.run(["ip", "netns", "exec", name, "unshare", "-um", "true"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], check=False)
    return f"no mounts in a namespace: {tried.stderr.strip()}" if tried.returncode else ""


class Machine:
    """One of the two. What is started on it runs in ``folder``."""

    def __init__(self, letter: str, name: str, number: int) -> None:
        self.letter, self.namespace, self.address = letter, name, f"10.99.0.{number}"
        self.interface, self.host = f"v{letter}{name[2:]}", f"node{letter}"
        self.started: list[subprocess.Popen[str]] = []

    def start(
        self, words: list[str], folder: Path, environment: dict[str, str], instead: Path | None = None
    ) -> subprocess.Popen[str]:
        """Start a program in ``folder``, its output in pipes.

        Args:
            instead: what this machine sees in place of ``folder``, which then is not shared.
        """
        mounts = [f"mount --bind {folder.parent}/{name} /etc/{name}" for name in ("hosts", "nsswitch.conf")]
        (folder.parent / "hosts").write_text(HOSTS)
        (folder.parent / "nsswitch.conf").write_text("hosts: files\n")
        if instead is not None:
            mounts.append(f"mount --bind {shlex.quote(str(instead))} {shlex.quote(str(folder))}")
        here = [*mounts, f"hostname {self.host}", f"cd {shlex.quote(str(folder))}", f"exec {shlex.join(words)}"]
        child = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, "unshare", "-um", "bash", "-ec", "; ".join(here)],
            env={**environment, "GLOO_SOCKET_IFNAME": self.interface},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(child)
        return child

    def processes(self) -> dict[int, str]:
        """What runs on it, by process id."""
        found = {}
        for pid in map(int, _ip("netns", "pids", self.namespace).split()):
            with contextlib.suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
        return {pid: words for pid, words in found.items() if words}  # a process that has ended has none


class TwoMachines:
    """``a`` and ``b``; whoever starts on both starts on ``a`` first."""

    def __init__(self, a: Machine, b: Machine, environment: dict[str, str]) -> None:
        self.a, self.b, self.environment = a, b, environment

    def torchrun(
        self, words: list[str], folder: Path, *, shared: bool = True, each: int = 1, options: tuple[str, ...] = ()
    ) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
        """``torchrun`` of ``python words...`` on both machines, ``each`` processes a machine; does not wait."""
        folder.mkdir(exist_ok=True)
        other = folder.with_name(f"{folder.name}-of-b")
        other.mkdir(exist_ok=True)
        started = []
        for machine in (self.a, self.b):
            rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint={self.a.address}:{PORT}", "--rdzv-id=test"]
            size = ["--nnodes=2", f"--nproc-per-node={each}", f"--local-addr={machine.address}"]
            launcher = [sys.executable, "-m", "torch.distributed.run", *size, *rendezvous, *options, *words]
            instead = other if machine is self.b and not shared else None
            started.append(machine.start(launcher, folder, self.environment, instead))
        return started[0], started[1]

    def pull_the_cable(self) -> None:
        _ip("-n", self.b.namespace, "link", "set", self.b.interface, "down")

    def plug_it_in(self) -> None:
        _ip("-n", self.b.namespace, "link", "set", self.b.interface, "up")

    def processes(self) -> dict[int, str]:
        return {**self.a.processes(), **self.b.processes()}

    def empty_after(self, limit: float) -> float:
        """Seconds until nothing runs on either; fails after ``limit``."""
        began = time.monotonic()
        while left := self.processes():
            assert time.monotonic() - began < limit, left
            time.sleep(0.1)
        return time.monotonic() - began


@contextlib.contextmanager
def two_machines(environment: dict[str, str]) -> Iterator[TwoMachines]:
    """Two machines and the cable between them; at the end nothing of them is left."""
    token = secrets.token_hex(4)
    a, b = Machine("a", f"pz{token}a", 1), Machine("b", f"pz{token}b", 2)
    machines = TwoMachines(a, b, {**environment, "PYTHONPATH": str(REPOSITORY)})
    try:
        for machine in (a, b):
            _ip("netns", "add", machine.namespace)
        cable = ["link", "add", a.interface, "netns", a.namespace, "type", "veth"]
        _ip(*cable, "peer", "name", b.interface, "netns", b.namespace)
        for machine in (a, b):
            _ip("-n", machine.namespace, "addr", "add", f"{machine.address}/24", "dev", machine.interface)
            for link in ("lo", machine.interface):
                _ip("-n", machine.namespace, "link", "set", link, "up")
        yield machines
    finally:
        for machine in (a, b):
            _clear(machine)


def _clear(machine: Machine) -> None:
    """End what runs on a machine, and take the machine away."""
    with contextlib.suppress(subprocess.CalledProcessError):
        for pid in machine.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for child in machine.started:
        child.kill()
        child.communicate()
    with contextlib.suppress(subprocess.CalledProcessError):
        _ip("netns", "del", machine.namespace)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout
