"""What a message between two ranks takes on this machine: two processes that write to each other, and wait.

    rank 0   |-- send --> . . . . <-- recv --|     half of a round trip, the median of many, for messages of a few sizes
    rank 1    . . --> recv  send -->  . . . .

``latency + bytes / bandwidth`` is fitted to the medians, each weighed by its own size: an error of 10 % counts as much
in a small message as in a large one. What the two do meanwhile is nothing, so a busy pair of ranks has slower messages.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from pipezoo.simulator.cost import P2P
from pipezoo.supervisor.process_group import join_process_group
from pipezoo.supervisor.supervisor import Limits, launch
from pipezoo.supervisor.worker_channel import Phase, WorkerChannel

SIZES = (1 << 10, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22)  # bytes
TURNS, WARM_UP, ROUNDS = 8, 3, 10  # over all sizes, so that a busy moment meets all of them; round trips of each
PATIENCE = 60.0  # seconds


class Sample(NamedTuple):
    """How long messages of one size took: quartiles, in seconds."""

    num_bytes: int
    low: float
    middle: float
    high: float


def measure_p2p(scratch: Path, device: str, start_method: str, log: Path) -> list[Sample]:
    """Messages between two processes on this machine, over gloo, or over nccl between two GPUs.

    Args:
        scratch: a private folder that the two find each other in.
        log: what they print goes there.

    Raises:
        RankError: they could not be started, or one of them was lost.
    """
    targets = {f"rank {rank}": partial(_to_and_fro, rank, scratch / "p2p", device) for rank in (0, 1)}
    heard = launch(targets, Limits(PATIENCE, PATIENCE), log, start_method=start_method)
    return [Sample(*row) for row in heard["rank 0"]]


def fit(samples: Sequence[Sample]) -> P2P:
    """The p2p message whose relative errors are smallest by their squares; neither number is below zero."""
    num_bytes, seconds = (np.array([sample[column] for sample in samples], dtype=float) for column in (0, 2))
    table = np.column_stack([1 / seconds, num_bytes / seconds])
    latency, per_byte = np.linalg.lstsq(table, np.ones(len(seconds)), rcond=None)[0]
    if latency < 0:
        latency, per_byte = 0.0, _alone(table[:, 1])
    if per_byte <= 0:
        return P2P(_alone(table[:, 0]))
    return P2P(float(latency), float(1 / per_byte))


def _alone(column: np.ndarray) -> float:
    """The factor that brings a column closest to one."""
    return float(column.sum() / (column @ column))


def _to_and_fro(rank: int, store: Path, device: str, channel: WorkerChannel) -> list[list[float]]:
    channel.note(Phase.JOIN)
    place = torch.device(device, rank) if device == "cuda" else torch.device(device)
    torch.set_num_threads(1)
    join_process_group(rank, 2, store, place, PATIENCE)
    messages = [torch.zeros(num_bytes, dtype=torch.uint8, device=place) for num_bytes in SIZES]
    trips: dict[int, list[float]] = {num_bytes: [] for num_bytes in SIZES}
    for _ in range(TURNS):
        for message in messages:
            channel.note(Phase.BATCH)
            trips[message.numel()] += [_round_trip(rank, message) for _ in range(WARM_UP + ROUNDS)][WARM_UP:]
    dist.barrier()
    return [[num_bytes, *(np.percentile(took, (25, 50, 75)) / 2).tolist()] for num_bytes, took in trips.items()]


def _round_trip(rank: int, message: torch.Tensor) -> float:
    """Seconds from the send of rank 0 to its receive."""
    began = time.perf_counter()
    for sender in (0, 1):
        if sender == rank:
            dist.send(message, 1 - rank)
        else:
            dist.recv(message, 1 - rank)
    if message.is_cuda:
        torch.cuda.synchronize(message.device)
    return time.perf_counter() - began
