"""Activation memory: the bytes that autograd really keeps, counted by the stage whose forward saved them.

    forward   every tensor that an op saves passes ``pack``: a new storage adds its bytes to the stage
    backward  autograd drops what it saved: the holder dies, and with the last one of a storage its bytes go;
              what was changed in place since raises, as it does without a meter

Parameters and buffers are not counted: they stay anyway. What is counted is exact for the tensors that autograd
saves; workspaces of single ops come and go between two actions and are not seen.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from pipezoo.runtime.whole import local
from pipezoo.schedule.action import Op


class ActivationMeter:
    """Counts what is saved under :meth:`saving`.

    Args:
        resident: tensors that live as long as the stages.
        stage_to_rank: the rank whose memory each stage takes.
    """

    def __init__(self, resident: Iterable[torch.Tensor], stage_to_rank: Sequence[int]) -> None:
        self._resident = {_storage(tensor) for tensor in resident}
        self._stage_to_rank = stage_to_rank
        self._holders: dict[int, int] = defaultdict(int)
        self._owner: dict[int, int] = {}
        self._held: dict[int, int] = defaultdict(int)
        self._rank_held: dict[int, int] = defaultdict(int)
        self._rank_peak: dict[int, int] = defaultdict(int)
        self._level: dict[int, int] = defaultdict(int)
        self._last: dict[int, Op] = {}
        self._changes: dict[tuple[int, Op], list[int]] = defaultdict(list)

    def saving(self, stage: int) -> AbstractContextManager[Any]:
        """What is saved in here belongs to ``stage``."""

        def pack(tensor: torch.Tensor) -> torch.Tensor | Held:
            return tensor if _storage(tensor) in self._resident else Held(self, stage, tensor)

        return torch.autograd.graph.saved_tensors_hooks(pack, _unpack)

    def turn(self, stage: int, op: Op) -> None:
        """``stage`` begins ``op``: what changed since its last turn was that one's doing."""
        if stage in self._last:
            self._changes[stage, self._last[stage]].append(self._held[stage] - self._level[stage])
        self._level[stage], self._last[stage] = self._held[stage], op

    def take(self, place: int, num_bytes: int, stage: int) -> None:
        """One more holder of the values at ``place``; the first one's stage owns them."""
        self._holders[place] += 1
        if self._holders[place] == 1:
            self._owner[place] = stage
            self._add(stage, num_bytes)

    def drop(self, place: int, num_bytes: int) -> None:
        self._holders[place] -= 1
        if not self._holders[place]:
            del self._holders[place]
            self._add(self._owner.pop(place), -num_bytes)

    def _add(self, stage: int, num_bytes: int) -> None:
        rank = self._stage_to_rank[stage]
        self._held[stage] += num_bytes
        self._rank_held[rank] += num_bytes
        self._rank_peak[rank] = max(self._rank_peak[rank], self._rank_held[rank])

    def read(self) -> dict[str, dict[int, float]]:
        """Bytes: ``activation_bytes``, ``freed_by_input_grad`` of a stage's microbatch (medians), ``peak`` by rank."""
        for stage in list(self._last):
            self.turn(stage, Op.F)
        stages = sorted(self._last)
        return {
            "activation_bytes": {stage: statistics.median(self._changes[stage, Op.F]) for stage in stages},
            "freed_by_input_grad": {
                stage: -statistics.median(self._changes.get((stage, Op.I), [0])) for stage in stages
            },
            "peak": dict(sorted(self._rank_peak.items())),
        }


class Held:
    """One saved tensor, as long as autograd keeps it."""

    __slots__ = ("_meter", "_num_bytes", "_place", "_tensor", "_version")

    def __init__(self, meter: ActivationMeter, stage: int, tensor: torch.Tensor) -> None:
        self._tensor, self._meter = tensor.detach(), meter  # a saved output would keep its own node alive
        self._version = tensor._version
        # A microbatch is a view of the whole batch, an expanded tensor has fewer bytes than elements: the smaller
        # of the two counts.
        part = local(self._tensor)
        self._place = part.data_ptr()
        self._num_bytes = min(part.numel() * part.element_size(), part.untyped_storage().nbytes())
        meter.take(self._place, self._num_bytes, stage)

    def unpacked(self) -> torch.Tensor:
        """The tensor as it was saved.

        Raises:
            RuntimeError: it was changed in place since; autograd itself does not look where hooks pack.
        """
        version = self._tensor._version
        if version != self._version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                f"[{self._tensor.type()} {list(self._tensor.shape)}] is at version {version}; expected version "
                f"{self._version} instead"
            )
        return self._tensor

    def __del__(self) -> None:
        self._meter.drop(self._place, self._num_bytes)


def _storage(tensor: torch.Tensor) -> int:
    return local(tensor).untyped_storage().data_ptr()


def _unpack(saved: torch.Tensor | Held) -> torch.Tensor:
    return saved.unpacked() if isinstance(saved, Held) else saved
