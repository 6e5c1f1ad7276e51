"""A real Slurm on this machine: a controller and two "nodes", as root, in the foreground, without systemd.

munged      who is who: one key for all
slurmctld   the controller; forgets everything with its folder
slurmd      one for each of the nodes n1 and n2, which are both this machine, on ports of loopback

Its daemons are children of the test process that the kernel kills with it, so nothing outlives the tests. Debian has
them as slurm-wlm, slurmctld, slurmd, slurm-client and munge.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipezoo.supervisor.processes import die_with_parent

DAEMONS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol")
NODES = ("n1", "n2")
CPUS = 4  # that each node claims to have
START = 60.0  # seconds until both nodes are idle; 1.2 on a quiet machine
END = 10.0  # seconds for jobs to go, and for a daemon to leave
SETTINGS = """
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/sock
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=3
MessageTimeout=10
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory=2000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=10 State=UP OverSubscribe=FORCE:4
"""


def why_no_slurm() -> str:
    """Why a Slurm cannot be started here; "" where it can."""
    if missing := [name for name in DAEMONS if _program(name) is None]:
        return f"{missing[0]} is not installed (Debian: slurm-wlm slurmctld slurmd slurm-client munge)"
    return "" if os.geteuid() == 0 else "its daemons are started as root"


class Slurm:
    """A running Slurm. ``environment`` is what a process needs to find it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment

    def run(self, *words: str, timeout: float = END, **given: str) -> str:
        """What one of its commands prints. Raises CalledProcessError, what it said with it."""
        environment = {**os.environ, **self.environment, **given}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=timeout, check=True)
        return done.stdout

    def jobs(self) -> list[str]:
        """Those that are pending or running."""
        return self.run("squeue", "-h", "-o", "%i").split()

    def job(self, number: str) -> dict[str, str]:
        """What it knows of a job, also of one that has ended."""
        words = self.run("scontrol", "-o", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_until(self, holds: Callable[[], object], timeout: float = 60.0) -> None:
        until = time.monotonic() + timeout
        while not holds():
            assert time.monotonic() < until, self.logs()
            time.sleep(0.05)

    def end_all_jobs(self) -> None:
        if jobs := self.jobs():
            self.run("scancel", *jobs)
            self.wait_until(lambda: not self.jobs(), END)

    def logs(self) -> str:
        """The last lines of its daemons."""
        files = sorted((self.folder / "log").glob("*.log"))
        return "\n".join(f"{file.name}: {line}" for file in files for line in file.read_text().splitlines()[-8:])


@contextlib.contextmanager
def running_slurm() -> Iterator[Slurm]:
    """A Slurm whose two nodes are idle; gone at the end, and all of its jobs with it."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a socket's path has at most 107 characters
    slurm = Slurm(folder, {"SLURM_CONF": str(folder / "slurm.conf")})
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        _write_files(folder)
        daemons.append(_munged(folder))
        slurm.wait_until(lambda: (folder / "munge" / "sock").exists(), START)
        daemons.append(_start(slurm, "slurmctld", "-D", "-f", str(folder / "slurm.conf")))
        for node in NODES:
            daemons.append(_start(slurm, "slurmd", "-D", "-N", node, "-f", str(folder / "slurm.conf")))
        slurm.wait_until(lambda: _are_idle(slurm), START)
        yield slurm
    finally:
        with contextlib.suppress(subprocess.SubprocessError, AssertionError):
            slurm.end_all_jobs()
        for daemon in reversed(daemons):
            _end(daemon)
        shutil.rmtree(folder, ignore_errors=True)


def _write_files(folder: Path) -> None:
    folder.chmod(0o755)
    for name in ("state", "log", "run", "munge", "spool/n1", "spool/n2"):
        (folder / name).mkdir(parents=True)
    (folder / "munge" / "key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge" / "key").chmod(0o400)
    settings = SETTINGS.format(
        folder=folder, host=socket.gethostname().partition(".")[0], ports=free_ports(3), cpus=CPUS
    )
    (folder / "slurm.conf").write_text(settings.lstrip())


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _munged(folder: Path) -> subprocess.Popen[bytes]:
    files = {"key-file": "key", "socket": "sock", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
    options = [f"--{option}={folder / 'munge' / name}" for option, name in files.items()]
    return _child([str(_program("munged")), "--foreground", "--force", *options], {}, folder / "log" / "munged.out")


def _start(slurm: Slurm, name: str, *words: str) -> subprocess.Popen[bytes]:
    output = slurm.folder / "log" / f"{'-'.join([name, *words[1:3]]).replace('/', '_')}.out"
    return _child([str(_program(name)), *words], slurm.environment, output)


def _child(words: list[str], environment: dict[str, str], output: Path) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    with output.open("wb") as file:
        return subprocess.Popen(
            words,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # a Ctrl-C is the tests', and they end it in good order
            preexec_fn=lambda: die_with_parent(parent),
        )


def _are_idle(slurm: Slurm) -> bool:
    with contextlib.suppress(subprocess.SubprocessError):
        return slurm.run("sinfo", "-h", "-o", "%t %D").split() == ["idle", str(len(NODES))]
    return False


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(END)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _program(name: str) -> str | None:
    """Daemons lie where only root looks."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
