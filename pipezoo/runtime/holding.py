"""What a process holds of the parameters of its stages: all of them, or a shard of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pipezoo.runtime.stages import Stages
from pipezoo.runtime.torch_replicas import Sharded, in_shards, in_whole

Named = Mapping[str, nn.Parameter]


class Holding:
    """The parameters that an optimizer moves, by stage.

    Args:
        stages: of the pipeline.
        sharded: those of this process that torch's replicas are around, by index.
    """

    def __init__(self, stages: Stages, sharded: Mapping[int, Sharded]) -> None:
        self._stages, self.sharded = stages, sharded
        self._holder = {name: one for one in sharded.values() for name in one.parameters}

    @property
    def is_split(self) -> bool:
        """Whether replicas hold different parts of a parameter."""
        return any(one.is_split for one in self.sharded.values())

    def parameters(self, stage: int) -> dict[str, nn.Parameter]:
        """Of one stage, by their names in the unsplit model."""
        return dict(self.sharded[stage].parameters) if stage in self.sharded else self._stages.parameters(stage)

    def whole_tensor(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The whole of a tensor that is like this process's part of parameter ``name``; all replicas call it."""
        return self._holder[name].whole(name, tensor) if name in self._holder else tensor

    def whole(self, content: Any) -> Any:
        """Nested plain data of parameters by name, as one that holds all would have it; all replicas call it."""
        return in_whole(content, self._holder) if self._holder else content

    def own(self, content: Any) -> Any:
        """Of such data, what this process holds."""
        return in_shards(content, self._holder) if self._holder else content
