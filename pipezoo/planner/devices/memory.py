"""What a rank holds: parameters, gradients, states of the optimizer, activations; by precision, optimizer, sharding.

bf16_master, adamw   2 bytes a parameter, 2 a gradient (4 where they are added up in float32), 4 + 8 of states
fsdp                 the states are cut over the replicas. Parameters and gradients are whole for all of a step,
                     as pipezoo runs it: they are gathered once, and not given back in between
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pipezoo.errors import ArgumentError
from pipezoo.validators import check_word


class Width(NamedTuple):
    """Bytes for each parameter: of itself, with copies that are computed with; of its gradient; of a master copy."""

    parameter: int
    gradient: int
    master: int


PRECISIONS = {  # the choices of ``precision`` that say which dtypes there are
    "fp32": Width(4, 4, 0),
    "bf16": Width(4 + 2, 4, 0),  # autocast keeps a copy in 16 bits
    "fp16": Width(4 + 2, 4, 0),
    "bf16_master": Width(2, 2, 4),
}
OPTIMIZERS = {"adamw": 8, "sgd_momentum": 4, "sgd": 0}  # bytes of states for each parameter
DP_WITH = ("replicate", "fsdp")


@dataclass(frozen=True)
class States:
    """How parameters, gradients and states are held.

    Args:
        precision: of :data:`PRECISIONS`.
        optimizer: of :data:`OPTIMIZERS`.
        float32_gradients: whether gradients are added up in float32, whatever the precision.

    Raises:
        ArgumentError: another word.
    """

    precision: str = "bf16_master"
    optimizer: str = "adamw"
    float32_gradients: bool = True

    def __post_init__(self) -> None:
        check_word("precision", self.precision, PRECISIONS)
        check_word("optimizer", self.optimizer, OPTIMIZERS)
        if not isinstance(self.float32_gradients, bool):
            raise ArgumentError("float32_gradients", self.float32_gradients, "must be true or false")

    @property
    def parameter(self) -> int:
        """Bytes of a parameter."""
        return PRECISIONS[self.precision].parameter

    @property
    def gradient(self) -> int:
        """Bytes of its gradient."""
        return 4 if self.float32_gradients else PRECISIONS[self.precision].gradient

    @property
    def state(self) -> int:
        """Bytes of what the optimizer keeps for it, the master copy included."""
        return PRECISIONS[self.precision].master + OPTIMIZERS[self.optimizer]


@dataclass(frozen=True)
class RankMemory:
    """Bytes of one process."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float = 0.0

    @property
    def total(self) -> float:
        return self.parameters + self.gradients + self.optimizer + self.activations

    def parts(self) -> dict[str, float]:
        """By name, the largest first."""
        named = {name: getattr(self, name) for name in ("parameters", "gradients", "optimizer", "activations")}
        return dict(sorted(named.items(), key=lambda pair: -pair[1]))


def rank_memory(num_parameters: float, states: States, shards_of_states: int, activations: float = 0.0) -> RankMemory:
    """What a process holds that has so many parameters.

    Args:
        num_parameters: of its stages, on its shard.
        states: how they are held.
        shards_of_states: replicas that share the states of the optimizer; 1: each has all.
        activations: bytes at its peak.
    """
    return RankMemory(
        num_parameters * states.parameter,
        num_parameters * states.gradient,
        num_parameters * states.state / shards_of_states,
        activations,
    )
