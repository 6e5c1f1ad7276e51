"""What a block takes on one shard: products by their FLOPs, everything else by the bytes it moves, sums over shards.

    F = products + attention + bytes of norms, residuals and the activation + 2 sums over shards
    I = products + attention twice (flash: 2.5 times, scores are made again) + 1.5 times the bytes + 2 sums over shards
    W = products

    product   max(FLOPs / (peak x efficiency), bytes / memory bandwidth)      a small one is bound by its bytes
    sum       all-reduce of the activations of a microbatch, less the share that is hidden behind products

Recomputation puts another F into I. These are assumptions; docs/large-worlds.md holds them against published runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipezoo.planner.devices.transformer import BYTES, Transformer
from pipezoo.topology.collectives import all_reduce_seconds
from pipezoo.topology.placement import Group
from pipezoo.topology.topology import Device, Topology

BACKWARD_BYTES = 1.5  # what an elementwise part moves in its backward, over what it moves in its forward
SCORES = 13  # bytes moved for a score: written, read and written by the softmax, dropped out, read
NORMS_AND_RESIDUALS = 20  # bytes for each feature of a token: two norms read and write, two sums read two and write


@dataclass(frozen=True)
class Seconds:
    """Of one microbatch: forward, input gradient, weight gradient."""

    F: float
    I: float
    W: float

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.F + other.F, self.I + other.I, self.W + other.W)

    def times(self, count: int) -> Seconds:
        return Seconds(self.F * count, self.I * count, self.W * count)


@dataclass(frozen=True)
class Shard:
    """One of ``tp`` processes that share a block.

    Args:
        model: the transformer.
        topology: with a device.
        group: the shards.
        sequence_parallel: whether norms and residuals are cut along the sequence.
        overlap: share of the sums over shards that is hidden behind products, in [0, 1].
    """

    model: Transformer
    topology: Topology
    group: Group
    sequence_parallel: bool = True
    overlap: float = 0.0

    @property
    def tp(self) -> int:
        return self.group.size

    @property
    def device(self) -> Device:
        assert self.topology.device is not None
        return self.topology.device

    def block(self, rows: int, recompute: bool = False) -> Seconds:
        """Of one block."""
        model, tokens = self.model, rows * self.model.sequence
        forward = inputs = weights = 0.0
        for inner, outer, cut in model.products:
            k, n = (inner / self.tp, outer) if cut == "in" else (inner, outer / self.tp)
            forward += self._product(tokens, k, n)
            inputs += self._product(tokens, n, k)
            weights += self._product(k, tokens, n)
        attention = (
            4.0 * tokens * model.sequence * model.hidden / self.tp / (self.device.flops * self.device.efficiency)
        )
        attention *= 0.5 if model.flash else 1.0
        moved = tokens * self._moved() / self.device.memory_bandwidth
        summed = 2 * all_reduce_seconds(BYTES * tokens * model.hidden, self.group, self.topology) * (1 - self.overlap)
        F = forward + attention + moved + summed
        again = F if recompute else 0.0
        return Seconds(
            F, inputs + attention * (2.5 if model.flash else 2) + BACKWARD_BYTES * moved + summed + again, weights
        )

    def head(self, rows: int) -> Seconds:
        """Of the head and its loss."""
        model, tokens = self.model, rows * self.model.sequence
        outer = model.vocabulary / self.tp
        loss = 4 * BYTES * tokens * outer / self.device.memory_bandwidth
        return Seconds(
            self._product(tokens, model.hidden, outer) + loss,
            self._product(tokens, outer, model.hidden) + loss,
            self._product(model.hidden, tokens, outer),
        )

    def _product(self, m: float, k: float, n: float) -> float:
        """Of matrices ``[m, k]`` and ``[k, n]``."""
        flops = 2.0 * m * k * n / (self.device.flops * self.device.efficiency)
        return max(flops, BYTES * (m * k + k * n + m * n) / self.device.memory_bandwidth)

    def _moved(self) -> float:
        """Bytes for each token that are no part of a product."""
        model = self.model
        whole = NORMS_AND_RESIDUALS * model.hidden / (self.tp if self.sequence_parallel else 1)
        inside = BYTES * model.ffn * (3 if model.gated else 2)
        scores = 0 if model.flash else SCORES * model.heads * model.sequence
        return whole + (inside + scores) / self.tp
