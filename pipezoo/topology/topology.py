"""A cluster on paper: nodes of so many GPUs, links by class with latency and bandwidth, and what one GPU can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipezoo.errors import ArgumentError
from pipezoo.simulator.p2p import P2P
from pipezoo.validators import check_int, check_number

CLASSES = ("in node", "between nodes", "between racks")
DEVICE_KEYS = ("flops", "memory", "memory_bandwidth", "efficiency")


@dataclass(frozen=True)
class Device:
    """One GPU.

    Args:
        flops: peak of matrix products in 16 bits, per second.
        memory: bytes.
        memory_bandwidth: bytes per second.
        efficiency: share of ``flops`` that a large product reaches; a number that is fitted or measured, never a peak.
    """

    flops: float
    memory: float
    memory_bandwidth: float
    efficiency: float

    def __post_init__(self) -> None:
        for name in DEVICE_KEYS:
            object.__setattr__(self, name, check_number(name, getattr(self, name), above=True))
        if self.efficiency > 1:
            raise ArgumentError("efficiency", self.efficiency, "must be a number in (0, 1]")


@dataclass(frozen=True)
class Topology:
    """Where processes can stand. Process ``i`` is GPU ``i`` in the order of nodes.

    Args:
        gpus_per_node: GPUs of a node.
        nodes: how many there are; None: as many as are needed.
        in_node: what a message between two GPUs of a node takes.
        between_nodes: the same between two nodes, of each GPU's own share of the network.
        nodes_per_rack: nodes that are near each other; None: there are no racks.
        between_racks: what a message between two racks takes; needs ``nodes_per_rack``.
        device: one GPU; None where no plan asks what it can do.
    """

    gpus_per_node: int
    in_node: P2P
    between_nodes: P2P
    nodes: int | None = None
    nodes_per_rack: int | None = None
    between_racks: P2P | None = None
    device: Device | None = None

    def __post_init__(self) -> None:
        check_int("gpus_per_node", self.gpus_per_node, 1)
        for name in ("nodes", "nodes_per_rack"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), 1)
        if (self.nodes_per_rack is None) != (self.between_racks is None):
            raise ArgumentError("nodes_per_rack", self.nodes_per_rack, "nodes_per_rack and between_racks come together")

    @property
    def levels(self) -> tuple[P2P, ...]:
        """What a message takes by class, the nearest first."""
        return (self.in_node, self.between_nodes, *([] if self.between_racks is None else [self.between_racks]))

    def node(self, process: int) -> int:
        """The node of a process."""
        return process // self.gpus_per_node

    def place(self, process: int) -> tuple[int, ...]:
        """Node, and rack where there are racks."""
        node = self.node(process)
        return (node,) if self.nodes_per_rack is None else (node, node // self.nodes_per_rack)

    def check_room(self, num_processes: int) -> None:
        """Raise ArgumentError where there are fewer GPUs than processes."""
        if self.nodes is not None and num_processes > self.nodes * self.gpus_per_node:
            have = f"{self.nodes} x {self.gpus_per_node} = {self.nodes * self.gpus_per_node} GPUs"
            needed = -(-num_processes // self.gpus_per_node)
            raise ArgumentError("nodes", self.nodes, f"{num_processes} processes need more than {have}", f">= {needed}")


def topology(
    gpus_per_node: int,
    in_node: Mapping[str, object],
    between_nodes: Mapping[str, object],
    nodes: int | None = None,
    nodes_per_rack: int | None = None,
    between_racks: Mapping[str, object] | None = None,
    device: Mapping[str, object] | None = None,
) -> Topology:
    """The topology that ``conf/topology/*.yaml`` describe.

    Raises:
        ArgumentError: an entry is missing, unknown or out of range.
    """
    links = {"in_node": in_node, "between_nodes": between_nodes, "between_racks": between_racks}
    made = {name: None if link is None else P2P(**_entries(name, link, P2P)) for name, link in links.items()}
    near, far = made["in_node"], made["between_nodes"]
    if near is None or far is None:
        name = "in_node" if near is None else "between_nodes"
        raise ArgumentError(name, None, "must have the keys latency, bandwidth")
    gpu = None if device is None else _device(device)
    return Topology(gpus_per_node, near, far, nodes, nodes_per_rack, made["between_racks"], gpu)


def _device(entries: Mapping[str, object]) -> Device:
    given = _known("device", entries, DEVICE_KEYS)
    if missing := [name for name in DEVICE_KEYS if name not in given]:
        raise ArgumentError("device", dict(entries), f"{missing[0]} is missing", DEVICE_KEYS)
    try:
        return Device(**given)  # type: ignore[arg-type]
    except ArgumentError as error:
        raise error.inside("device") from None


def _entries(name: str, entries: Mapping[str, object], kind: type[P2P]) -> dict[str, float]:
    given = _known(name, entries, ("latency", "bandwidth"))
    try:
        kind(**given)  # type: ignore[arg-type]
    except ArgumentError as error:
        raise error.inside(name) from None
    return given  # type: ignore[return-value]


def _known(name: str, entries: object, keys: tuple[str, ...]) -> dict[str, object]:
    if not isinstance(entries, Mapping):
        raise ArgumentError(name, entries, f"must have the keys {', '.join(keys)}")
    for key in entries:
        if key not in keys:
            raise ArgumentError(f"{name}.{key}", entries[key], "no such key", keys)
    return {str(key): value for key, value in entries.items()}
