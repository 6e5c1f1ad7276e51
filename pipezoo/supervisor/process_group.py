"""The processes that send each other tensors, and how they meet: by a file, without a port, or in a world's store."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from pipezoo.supervisor.world_store import StoreAddress


def join_process_group(rank: int, size: int, store: Path | StoreAddress, device: torch.device, timeout: float) -> None:
    """Join the others, over nccl with a GPU each, else over gloo; returns when all have.

    Args:
        store: a file in a private folder that all of them share; or where the processes of a world meet.
        timeout: seconds after which a message is given up.
    """
    if isinstance(store, Path):
        stay_on_loopback()
        keys: dist.Store = dist.FileStore(str(store), size)
    else:
        keys = store.connect()
    gpu = device.type == "cuda"
    dist.init_process_group(
        "nccl" if gpu else "gloo",
        store=keys,
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=timeout),
        device_id=device if gpu else None,
    )


def stay_on_loopback() -> None:
    """Have gloo open nothing beyond this machine."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if os.uname().sysname == "Darwin" else "lo"
