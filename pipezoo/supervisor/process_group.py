"""The processes of this machine that send each other tensors, and how they meet: by a file, without a port."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist


def join_process_group(rank: int, size: int, store: Path, device: torch.device, timeout: float) -> None:
    """Join the others, over nccl with a GPU each, else over gloo; returns when all have.

    Args:
        store: a file in a private folder that all of them share.
        timeout: seconds after which a message is given up.
    """
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if os.uname().sysname == "Darwin" else "lo"  # nothing beyond loopback
    gpu = device.type == "cuda"
    dist.init_process_group(
        "nccl" if gpu else "gloo",
        store=dist.FileStore(str(store), size),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=timeout),
        device_id=device if gpu else None,
    )
