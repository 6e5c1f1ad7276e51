"""Small plans for tests: a model of a few layers on a few devices."""

from __future__ import annotations

from typing import Any

from pipezoo.planner.devices.options import DeviceOptions
from pipezoo.simulator.p2p import P2P
from pipezoo.topology.topology import Device, Topology

SIZES = {"layers": 8, "hidden": 1024, "heads": 16, "kv_heads": 4, "ffn": 4096, "vocabulary": 8192, "sequence": 512}
DEVICE = Device(flops=100e12, memory=4e9, memory_bandwidth=1e12, efficiency=0.5)
CLUSTER = Topology(4, P2P(1e-6, 100e9), P2P(5e-6, 10e9), device=DEVICE)


def options(**changed: Any) -> DeviceOptions:
    """16 devices, 32 rows; what is ``changed`` of the transformer is a dict of sizes."""
    sizes = SIZES | changed.pop("transformer", {})
    return DeviceOptions(**({"devices": 16, "global_batch": 32, "transformer": sizes, "top": 4} | changed))
