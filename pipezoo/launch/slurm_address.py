"""Where rank 0 of a Slurm step runs, from what Slurm tells every task.

SLURM_STEP_NODELIST=n[1-2]  --first-->  n1  --scontrol show node n1-->  NodeAddr=10.0.0.1

A node's name need not resolve, and the variables with an address in them (``SLURM_LAUNCH_NODE_IPADDR``,
``SLURM_SRUN_COMM_HOST``) are of the machine where ``srun`` was typed, a login node. Nothing here falls back to this
machine: then each node would be rank 0's, and wait for the others.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping

from pipezoo.errors import ConfigError

NODELIST = "SLURM_STEP_NODELIST"
SECONDS = 20.0  # for which scontrol may take to answer
MOST = 1 << 16  # nodes of a list
RANGE = re.compile(r"\d+(?:-\d+)?")


def hosts_of(nodelist: str) -> list[str]:
    """The names that a list of Slurm's stands for: ``n[1-2,07],m3`` is n1, n2, n07, m3.

    Raises:
        ConfigError: it is no such list.
    """
    names = [name for entry in _entries(nodelist) for name in _expanded(entry, nodelist)]
    if not names:
        raise _no_list(nodelist)
    return names


def address_of_first_host(environ: Mapping[str, str], ask: Callable[[str], str] | None = None) -> str:
    """The address at which the others reach rank 0's node.

    Args:
        environ: of a task.
        ask: what ``scontrol -o show node NAME`` prints; "" where there is no scontrol.

    Raises:
        ConfigError: Slurm does not say which node it is, or it has no address.
    """
    if not environ.get(NODELIST):
        raise ConfigError(f"{NODELIST}: is not set, so that nobody knows where rank 0 is; valid: what srun sets")
    host = hosts_of(environ[NODELIST])[0]
    told = re.search(r"\bNodeAddr=(\S+)", (ask or _scontrol)(host))
    if told and told[1] != "(null)":
        return told[1]
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise ConfigError(
            f"{NODELIST}={environ[NODELIST]}: {host} has no address: scontrol says none, and {error.strerror or error}"
        ) from None


def _entries(nodelist: str) -> list[str]:
    """Between commas that stand in no brackets."""
    return re.findall(r"(?:\[[^]]*\]?|[^,\[])+", nodelist)


def _expanded(entry: str, nodelist: str) -> Iterator[str]:
    before, bracket, rest = entry.partition("[")
    if not bracket:
        if not re.fullmatch(r"[\w.-]+", entry):
            raise _no_list(nodelist)
        yield entry
        return
    inside, closed, after = rest.partition("]")
    ends = list(_expanded(after, nodelist)) if after else [""]
    if not closed:
        raise _no_list(nodelist)
    for number in _numbers(inside, nodelist):
        for end in ends:
            yield f"{before}{number}{end}"


def _numbers(inside: str, nodelist: str) -> Iterator[str]:
    """``1-2,07`` is 1, 2, 07: as many digits as the first has."""
    for part in inside.split(","):
        if not RANGE.fullmatch(part):
            raise _no_list(nodelist)
        first, _, last = part.partition("-")
        if not 0 <= int(last or first) - int(first) < MOST:
            raise _no_list(nodelist)
        for number in range(int(first), int(last or first) + 1):
            yield f"{number:0{len(first)}}"


def _no_list(nodelist: str) -> ConfigError:
    return ConfigError(f"{NODELIST}={nodelist!r}: is no list of nodes; valid: names like n1,m[1-4]")


def _scontrol(host: str) -> str:
    try:
        words = ["scontrol", "-o", "show", "node", host]
        return subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
