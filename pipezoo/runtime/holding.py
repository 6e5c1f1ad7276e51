"""What a process holds of the parameters of its stages: all of them, or a shard of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipezoo.runtime.stages import Stages

if TYPE_CHECKING:
    from pipezoo.runtime.torch_replicas import Sharded  # FSDP2 takes its time

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
        return _in_whole(content, self._holder) if self._holder else content

    def own(self, content: Any) -> Any:
        """Of such data, what this process holds."""
        return _in_shards(content, self._holder) if self._holder else content


def _in_whole(value: Any, stages: Mapping[str, Sharded], name: str = "") -> Any:
    """Nested plain data of parameters by name, with whole tensors for this process's shards; all replicas call it."""
    if isinstance(value, torch.Tensor) and name and value.shape == stages[name].parameters[name].shape:
        return stages[name].whole(name, value).detach().cpu()
    return _nested(value, stages, name, _in_whole)


def _in_shards(value: Any, stages: Mapping[str, Sharded], name: str = "") -> Any:
    """The inverse of :func:`_in_whole`."""
    if isinstance(value, torch.Tensor) and name and value.shape == stages[name].shape(name):
        return stages[name].shard(name, value)
    return _nested(value, stages, name, _in_shards)


def _nested(value: Any, stages: Mapping[str, Sharded], name: str, each: Callable[..., Any]) -> Any:
    if isinstance(value, dict):
        return {key: each(item, stages, key if key in stages else name) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(each(item, stages, name) for item in value)
    return value
