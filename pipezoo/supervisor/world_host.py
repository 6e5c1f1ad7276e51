"""Rank 0's side of a world: it composes, owns the folder and the output, watches the others and has the last word.

    open()         the store of the world                         others: the same
    gather()       where everybody is; a line for each            others: come with the token, and what is installed
    send()         what is to be run, in plain values             others: build the pipeline
    ready()        clocks; who sees the folder; "go"              others: fork their rank
    workers()      for the supervisor
    leave()        the exit code of the run                       others: leave with it

A process is in one world at most, so there is one host at most: :func:`hosted`.
"""

from __future__ import annotations

import hmac
import secrets
import select
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipezoo import errors
from pipezoo.errors import ConfigError, NoProgressError, PipezooError, RankError
from pipezoo.found_world import FoundWorld
from pipezoo.schedule.action import Action
from pipezoo.supervisor.clocks import Clock, measure
from pipezoo.supervisor.line import Line
from pipezoo.supervisor.this_machine import (
    LOOPBACK,
    address_of,
    address_towards,
    check_same,
    host_name,
    installed_versions,
    network,
)

if TYPE_CHECKING:
    from pipezoo.supervisor.workers import Worker

FAREWELL = 5.0  # seconds in which the others take their leave
TOKEN = 16  # bytes
PATIENCE = 60.0  # seconds for a line that nobody has said more of


@dataclass
class Guest:
    """Another process of the world, behind its line."""

    rank: int
    line: Line
    host: str
    pid: int
    shares_folder: bool = True
    clock: Clock = field(default_factory=Clock)


class Host:
    """Of the world that this process was found to be rank 0 of.

    Args:
        found: the world.
        words: that were typed, which are the same in every process.
        store_port: that was typed; None: none was.
        timeout: seconds for all that is done before the first step.
    """

    def __init__(self, found: FoundWorld, words: Sequence[str], store_port: int | None, timeout: float) -> None:
        self.found, self._words, self._timeout = found, [*words], timeout
        self._store_port = store_port
        self._store: Any = None
        self._told = False
        self.guests: dict[int, Guest] = {}
        self.machines: list[dict[str, Any]] = []  # of each rank: its host, its network
        self.port: int | None = None
        self.interface: str | None = None
        self.address = ""

    def open(self) -> Any:
        """The store of the world."""
        if self._store is None:
            from pipezoo.supervisor.world_store import WorldStore

            self._store = WorldStore(self.found, self._store_port, self._timeout)
            self._store.tell("machine/0", {"host": host_name(self.found.node), "network": network()})
        return self._store

    @property
    def hosts(self) -> list[str]:
        """The machine of each rank."""
        return [machine["host"] for machine in self.machines]

    @property
    def on_one_machine(self) -> bool:
        return len({machine["network"] for machine in self.machines}) <= 1

    def gather(self, patience: float = PATIENCE) -> None:
        """Meet the others, and hold what they have installed against what is installed here.

        Raises:
            ConfigError: they differ, or the port for the lines is taken.
            RankError, NoProgressError: one does not come.
        """
        if self.guests:
            return
        until = time.monotonic() + self._timeout
        store = self.open()
        try:
            self.machines = store.wait_for([f"machine/{rank}" for rank in range(self.found.size)], until)
        except RankError as error:
            missing = str(error).rpartition("/")[2]
            raise RankError(f"rank {missing} did not come within launch.start_timeout={self._timeout:g} s") from error
        self._accept(until, patience)

    def _accept(self, until: float, patience: float) -> None:
        from pipezoo.supervisor.world_store import listening

        self.address = self._own_address()
        with listening(self.address, self._port_of_lines(), "launch.port") as listener:
            token = secrets.token_hex(TOKEN)
            place = {"address": self.address, "port": listener.getsockname()[1], "token": token, "patience": patience}
            self._store.tell("lines", place)
            self._told = True
            strangers: list[Line] = []
            while len(self.guests) < self.found.size - 1:
                if time.monotonic() > until:
                    missing = [rank for rank in range(1, self.found.size) if rank not in self.guests]
                    raise NoProgressError(
                        f"rank {missing[0]} did not come within launch.start_timeout={self._timeout:g} s"
                    )
                ends: list[Any] = [listener, *strangers]
                select.select(ends, [], [], 0.1)
                if select.select([listener], [], [], 0.0)[0]:
                    strangers.append(Line(listener.accept()[0], patience))
                strangers = [line for line in strangers if not self._welcomed(line, token) and line.open]
        self._check_guests()

    def _welcomed(self, line: Line, token: str) -> bool:
        """Whether it has shown the token, and is a guest from now on. Who shows another one is sent away."""
        for message in line.messages()[:1]:
            rank = message.get("rank")
            shown = isinstance(message.get("token"), str) and hmac.compare_digest(
                message["token"].encode(), token.encode()
            )
            if not shown or not isinstance(rank, int) or not 0 < rank < self.found.size or rank in self.guests:
                line.close()
                return False
            line.trust()
            self.guests[rank] = Guest(rank, line, self.hosts[rank], int(message["pid"]))
            self.machines[rank] |= {"versions": message["versions"], "words": message["words"]}
            return True
        return False

    def _check_guests(self) -> None:
        ours = installed_versions()
        for rank in sorted(self.guests):
            who = f"rank {rank} on {self.hosts[rank]}"
            check_same(who, self.machines[rank]["versions"], ours)
            if self.machines[rank]["words"] != self._words:
                theirs = [word for word in self.machines[rank]["words"] if word not in self._words]
                raise ConfigError(
                    f"{who} was started with other words than rank 0"
                    f"{f' ({theirs[0]})' if theirs else ''}; valid: the same command on every machine"
                )

    def _own_address(self) -> str:
        """Loopback where all are on this machine; else the address that the others come in by, and no other."""
        if self.interface is not None:
            return address_of(self.interface)
        if self.on_one_machine:
            return LOOPBACK
        other = next(m for m in self.machines if m["network"] != self.machines[0]["network"])
        return address_towards(other["address"], 1)

    def _port_of_lines(self) -> int:
        """Beside a store that took it, the next one."""
        if self.port is None:
            return 0
        return self.port + int(self.port == self._store.port)

    def send(self, kind: str, **content: Any) -> None:
        """Tell all the same."""
        for guest in self.guests.values():
            guest.line.send(kind, **content)

    def ready(self, until: float) -> None:
        """Wait until all have built the pipeline.

        Raises:
            PipezooError: what one of them refused, in its words; or it is gone.
        """
        waiting = dict(self.guests)
        while waiting:
            if time.monotonic() > until:
                one = min(waiting)
                raise NoProgressError(f"rank {one} on {self.hosts[one]} did not build the pipeline in time")
            select.select([guest.line for guest in waiting.values()], [], [], 0.1)
            for rank, guest in [*waiting.items()]:
                for message in guest.line.messages():
                    if message["kind"] == "refused":
                        raise _refusal(f"rank {rank} on {guest.host}", message)
                    if message["kind"] == "ready":
                        guest.shares_folder = bool(message["shares_folder"])
                        waiting.pop(rank, None)
                if not guest.line.open:
                    raise RankError(f"rank {rank} on {guest.host} left while it built the pipeline")

    def measure_clocks(self) -> None:
        """The offset of each machine's clock, once more."""
        for guest in self.guests.values():
            if guest.line.open and (offset := measure(guest.line)) is not None:
                guest.clock.offsets.append(offset)

    @property
    def clock_error(self) -> float:
        """Seconds that a time of any rank may be off, against one of another."""
        return max((guest.clock.error for guest in self.guests.values()), default=0.0)

    def told(self, interface: str) -> str:
        """``2 processes on nodea, 1 on nodeb; lines at 10.0.0.1, messages over eth0; nodeb does not see the folder``"""
        counts = {host: self.hosts.count(host) for host in dict.fromkeys(self.hosts)}
        first, *others = [f"{number} on {host}" for host, number in counts.items()]
        processes = "process" if first.startswith("1 ") else "processes"
        where = ", ".join([first.replace(" on", f" {processes} on", 1), *others])
        blind = sorted({guest.host for guest in self.guests.values() if not guest.shares_folder})
        unseen = f"; {', '.join(blind)} does not see the folder, and sends its files" if blind else ""
        return f"{where}; lines at {self.address}, messages over {interface or 'what the system chooses'}{unseen}"

    @property
    def clocks(self) -> dict[str, Any]:
        """By rank, what is added to the times of its machine, and how far off they may be."""
        return {f"rank {rank}": guest.clock.told() for rank, guest in sorted(self.guests.items())}

    @property
    def blind(self) -> Guest | None:
        """The first that does not see the folder of the run; None: all do."""
        return next((guest for guest in self.guests.values() if not guest.shares_folder), None)

    def names(self, names: Sequence[str]) -> list[str]:
        """The names of all ranks, with their machines where there are several."""
        if len(set(self.hosts)) == 1:
            return [*names]
        return [f"{name} on {host}" for name, host in zip(names, self.hosts, strict=True)]

    def workers(
        self, names: Sequence[str], actions: Sequence[Sequence[Action]], files: Path, log: Path
    ) -> dict[str, Worker]:
        """The others as the supervisor watches them, by name. They start now."""
        from pipezoo.supervisor.remote_worker import RemoteWorker

        found: dict[str, Worker] = {}
        for rank, guest in sorted(self.guests.items()):
            found[names[rank]] = RemoteWorker(
                names[rank], guest.line, actions[rank], guest.pid, files, log, guest.clock
            )
            guest.line.send("go")
        return found

    def leave(self, code: int) -> None:
        """Tell all the exit code of the run, and wait until they have gone."""
        until = time.monotonic() + FAREWELL
        try:
            if self._told:
                self.send("leave", code=code)
                self._wait_for_ends(until)
            else:
                store = self.open()
                store.tell("lines", {"leave": code})
                self._told = True
                if not self.found.has_store:  # it goes with this process
                    store.wait_for([f"left/{rank}" for rank in range(1, self.found.size)], until + FAREWELL)
        except (PipezooError, OSError):
            pass  # who is not there hears nothing

    def _wait_for_ends(self, until: float) -> None:
        left = [guest.line for guest in self.guests.values()]
        while (left := [line for line in left if line.open]) and time.monotonic() < until:
            select.select(left, [], [], 0.1)
            for line in left:
                line.messages()


def _refusal(who: str, message: Mapping[str, Any]) -> PipezooError:
    kind = getattr(errors, str(message["type"]), None)
    known = isinstance(kind, type) and issubclass(kind, PipezooError)
    return (kind if known else RankError)(f"{who}: {message['text']}")  # type: ignore[misc]


def check_size(ranks: int, beside: int, size: int, starter: str) -> None:
    """Raises ConfigError: the world has not as many processes as the pipeline.

    Args:
        ranks: of the pipeline.
        beside: how many processes there are for each of them.
        size: of the world.
        starter: who made it.
    """
    if ranks * beside == size:
        return
    needs = f"ranks={ranks}" if beside == 1 else f"ranks={ranks} times mesh.dp * mesh.tp = {beside}"
    raise ConfigError(
        f"{needs}: the pipeline has {ranks * beside} processes, and {starter} has started {size}; "
        f"valid: {'' if size % beside else f'ranks={size // beside}, or '}{ranks * beside} processes"
    )


class _State:
    host: Host | None = None


def hosted() -> Host | None:
    """The world that this process is rank 0 of; None: it is in none."""
    return _State.host


def host(found: FoundWorld, words: Sequence[str], store_port: int | None, timeout: float) -> Host:
    """From now on this process is rank 0 of a world."""
    _State.host = Host(found, words, store_port, timeout)
    return _State.host
