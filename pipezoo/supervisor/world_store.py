"""The keys through which the processes of a world find each other: the starter's own store, or one that rank 0 opens.

    pipezoo/JOB/ATTEMPT/CALL/machine/RANK    where each process is
    pipezoo/JOB/ATTEMPT/CALL/lines           rank 0: where its lines are, and the token for them; or the exit code
    pipezoo/JOB/ATTEMPT/CALL/group/...       the process group's own
    pipezoo/JOB/CALL/...                     what the next attempt is told

An attempt (``--max-restarts``) must not read the keys of the one before, whose processes are gone; nor must a second
command of the same script, which is why calls are counted. A store has no password: whoever reaches its port reads
along. So what is in it opens a line, and nothing of the run is in it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from pipezoo.errors import ConfigError, RankError
from pipezoo.found_world import SRUN, FoundWorld, port_of
from pipezoo.supervisor.this_machine import LOOPBACK

POLL = 0.01  # seconds between two looks at a key
COME = 60.0  # seconds in which rank 0 shows up once another process is there


@dataclass(frozen=True)
class StoreAddress:
    """Where a process connects to the keys of this call; plain, so that a child may."""

    address: str
    port: int
    prefix: str
    timeout: float

    def connect(self) -> dist.Store:
        """A connection of its own: two processes cannot share one."""
        store = dist.TCPStore(
            self.address, self.port, None, False, timedelta(seconds=self.timeout), wait_for_workers=False
        )
        return dist.PrefixStore(self.prefix, store)


class WorldStore:
    """The keys, as one process of the world sees them.

    Args:
        found: the world.
        port: of the store that rank 0 opens, where the starter says none; None: by the job's number.
        timeout: seconds that a process waits for the store.

    Raises:
        ConfigError: the port is taken.
        RankError: nobody answers.
    """

    def __init__(self, found: FoundWorld, port: int | None, timeout: float) -> None:
        self.found, self._timeout = found, timeout
        address = found.address or _address(found)
        number = found.port or port or port_of(found)
        if found.rank == 0 and not found.has_store:
            self._store = _opened(address, number, timeout)
        else:
            self._store = _connected(address, number, timeout if found.rank == 0 else min(timeout, COME))
        call = self._store.add(f"pipezoo/{found.job}/{found.attempt}/calls/{found.rank}", 1)
        self._prefix = f"pipezoo/{found.job}/{found.attempt}/{call}"
        self._lasting = f"pipezoo/{found.job}/{call}"
        self.address, self.port = address, number

    def group(self) -> StoreAddress:
        """For the process group."""
        return StoreAddress(self.address, self.port, f"{self._prefix}/group", self._timeout)

    def tell(self, key: str, value: Any) -> None:
        self._store.set(f"{self._prefix}/{key}", json.dumps(value))

    def tell_next_attempt(self, key: str, value: Any) -> None:
        self._store.set(f"{self._lasting}/{key}", json.dumps(value))

    def told_by_last_attempt(self, key: str) -> Any:
        """None: it said nothing."""
        name = f"{self._lasting}/{key}"
        return json.loads(self._store.get(name)) if self._store.check([name]) else None

    def wait_for(self, keys: Sequence[str], until: float, meanwhile: Callable[[], None] = lambda: None) -> list[Any]:
        """The values of ``keys``, once all are there.

        Args:
            until: of ``time.monotonic``.
            meanwhile: called between two looks.

        Raises:
            RankError: they do not come, or the store is gone.
        """
        names = [f"{self._prefix}/{key}" for key in keys]
        try:
            while not self._store.check(names):
                if time.monotonic() > until:
                    missing = [k for k, name in zip(keys, names, strict=True) if not self._store.check([name])]
                    raise RankError(f"nobody said {missing[0]}")
                meanwhile()
                time.sleep(POLL)
            return [json.loads(self._store.get(name)) for name in names]
        except (dist.DistError, RuntimeError) as error:
            raise RankError(f"the store of the world at {self.address} port {self.port} is gone") from error


def _address(found: FoundWorld) -> str:
    if found.on_one_machine or found.starter != SRUN:
        return LOOPBACK
    from pipezoo.launch.slurm_address import address_of_first_host

    return str(address_of_first_host(os.environ))


def _opened(address: str, port: int, timeout: float) -> dist.TCPStore:
    """Rank 0's own, on the address that others know and no other."""
    listener = listening(address, port, "launch.port")
    return dist.TCPStore(
        address,
        port,
        None,
        True,
        timedelta(seconds=timeout),
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def listening(address: str, port: int, key: str) -> socket.socket:
    """A socket that listens there. Raises ConfigError: somebody else does."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(place)
            listener.listen(1024)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"{key}={port}: rank 0 cannot listen at {address}: {error.strerror or error}; valid: a port that is free"
        ) from error
    return listener


def _connected(address: str, port: int, timeout: float) -> dist.TCPStore:
    until = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((address, port), timeout=5.0).close()  # torch's own wait prints a page
            return dist.TCPStore(address, port, None, False, timedelta(seconds=timeout), wait_for_workers=False)
        except (OSError, dist.DistError, RuntimeError) as error:
            if time.monotonic() > until:
                raise RankError(f"no store of the world at {address} port {port}: {error}") from error
            time.sleep(0.05)
