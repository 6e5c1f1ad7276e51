"""What tells a machine from others, how it is reached, and what is installed on it."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import struct
from importlib import metadata
from pathlib import Path
from typing import Any

from pipezoo.errors import ConfigError
from pipezoo.installed import version

LOOPBACK = "127.0.0.1"
SIOCGIFADDR = 0x8915  # of Linux: the address of an interface
VERSIONS = ("torch", "numpy")  # beside pipezoo and Python, what computes the numbers


def network() -> str:
    """What two processes share that reach each other over loopback: the machine that was booted, and its network."""
    try:
        booted = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{booted}/{os.stat('/proc/self/ns/net').st_ino}"
    except OSError:
        return socket.gethostname()


def host_name(told: str = "") -> str:
    """What this machine is called. ``told``: by the starter, as Slurm calls its nodes."""
    return told or socket.gethostname()


def installed_versions() -> dict[str, str]:
    """What has to be the same on all machines of a run."""
    found = {"pipezoo": version(), "Python": ".".join(platform.python_version_tuple()[:2])}
    return found | {name: metadata.version(name) for name in VERSIONS} | {"pipezoo's code": code_digest()}


def code_digest() -> str:
    """Of pipezoo's own files: two working copies of one version may differ."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in ("__pycache__", "conf"))
        for name in sorted(names):
            if name.endswith(".py"):
                digest.update(name.encode() + (Path(folder) / name).read_bytes())
    return digest.hexdigest()[:12]


def check_same(who: str, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Raises ConfigError where another machine has something else installed."""
    for name in ours:
        if theirs.get(name) != ours[name]:
            raise ConfigError(
                f"{who} has {name} {theirs.get(name)}, and rank 0 has {ours[name]}; valid: the same on every machine"
            )


def address_towards(address: str, port: int) -> str:
    """The address of this machine that ``address`` sees; nothing is sent."""
    for family, kind, protocol, _, place in socket.getaddrinfo(address, port or 1, type=socket.SOCK_DGRAM):
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.connect(place)
                return str(probe.getsockname()[0])
            except OSError:
                continue
    return LOOPBACK


def address_of(interface: str) -> str:
    """The address of a network interface. Raises ConfigError."""
    names = [name for _, name in socket.if_nameindex()]
    if interface not in names:
        raise ConfigError(f"launch.interface={interface}: there is none on {host_name()}; valid: {', '.join(names)}")
    found = _address(interface)
    if found is None:
        raise ConfigError(f"launch.interface={interface}: has no IPv4 address on {host_name()}; valid: one that has")
    return found


def interface_of(address: str) -> str | None:
    """The interface that has ``address``; None where no interface of this machine has it."""
    return next((name for _, name in socket.if_nameindex() if _address(name) == address), None)


def _address(interface: str) -> str | None:
    try:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            packed = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        return socket.inet_ntoa(packed[20:24])
    except (ImportError, OSError):
        return None
