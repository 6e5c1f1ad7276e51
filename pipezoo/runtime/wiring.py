"""How the stages of a pipeline are wired: which tensors leave each of them, and to which stage they go next.

    stage 0 ──(x, h)──► stage 1 ──(x)──► stage 2 ──(x)──► stage 3         h is used in 1 and in 3
                           └──────────(h)───────────────────▲             hops  0 → 1 (x, h)   1 → 2   1 → 3 (h)   2 → 3

A value goes from the stage that makes it to the first that uses it, from there to the second, and so on; its gradient
takes the same way back. So each user adds its share to what the users behind it have added, as one device does, whose
backward comes to the last use first: the sums are equal bit for bit. An input of the model does not travel: every rank
has the batch.

An executor handles flat tuples of tensors. Where a stage takes or returns anything else, a :class:`WiredStage` stands
around its module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from pipezoo.runtime.trees import LEAF, Structure, flatten, same_plain
from pipezoo.skips import WithSkips, arguments

Tensors = tuple[torch.Tensor, ...]


class Hop(NamedTuple):
    """What one stage hands to another, for one microbatch.

    Args:
        before, after: the two stages.
        forms: examples without memory: shape, dtype, memory layout and ``requires_grad``.
    """

    before: int
    after: int
    forms: Tensors

    @property
    def num_bytes(self) -> int:
        return sum(form.numel() * form.element_size() for form in self.forms)


class Leaf(NamedTuple):
    """One leaf of an argument: a tensor that arrives, or a value that is always the same."""

    arrives: int | None
    plain: Any = None


@dataclass(frozen=True)
class Argument:
    """One value that a stage is called with."""

    structure: Structure
    leaves: tuple[Leaf, ...]

    def of(self, arrived: Sequence[torch.Tensor]) -> Any:
        return self.structure.rebuild(
            [leaf.plain if leaf.arrives is None else arrived[leaf.arrives] for leaf in self.leaves]
        )


@dataclass(frozen=True)
class StagePlan:
    """What one stage takes and returns, as flat tuples of tensors.

    Args:
        inputs: forms of what arrives: from the stage before, then from those further back, the nearest first; last what
            is ``given``.
        given: which inputs of the model this stage has from its own rank's batch, with no message. Of the first stage,
            which has them all, none.
        outputs: forms of what leaves: for the next stage, then for those further on, the nearest first.
        arguments, keywords: what the module is called with.
        result: how the leaves of what it returns are nested.
        plain: by the index of such a leaf, those that are no tensors.
        same: by the index of a leaf, that of the one before which is the same tensor.
        leaving: where each output is: ``(True, i)`` leaf ``i`` of the result, ``(False, i)`` what arrived as ``i``.
    """

    inputs: Tensors
    outputs: Tensors
    given: tuple[int, ...] = ()
    arguments: tuple[Argument, ...] = ()
    keywords: Mapping[str, Argument] = field(default_factory=dict)
    result: Structure = LEAF
    plain: Mapping[int, Any] = field(default_factory=dict)
    same: Mapping[int, int] = field(default_factory=dict)
    leaving: tuple[tuple[bool, int], ...] = ()

    @property
    def is_flat(self) -> bool:
        """Whether the module itself takes ``inputs`` and returns ``outputs``."""
        takes = [argument.leaves[0].arrives for argument in self.arguments if argument.structure == LEAF]
        flat_in = takes == list(range(len(self.inputs))) and len(takes) == len(self.arguments) and not self.keywords
        size = len(self.outputs)
        flat_out = self.leaving == tuple((True, i) for i in range(size)) and len(self.result.children) == size
        return flat_in and flat_out and all(child == LEAF for child in self.result.children) and not self.same


@dataclass(frozen=True)
class Wiring:
    """All stages of a pipeline, for one shape of batch.

    Args:
        stages: ``[num_stages]``; the first stage's inputs are the model's, the last one's output is the model's.
        hops: ordered by the stage that sends, then by the one that receives; each two neighbours have one.
    """

    stages: tuple[StagePlan, ...]
    hops: tuple[Hop, ...]

    @property
    def skips(self) -> tuple[Hop, ...]:
        """The hops between stages that are no neighbours."""
        return tuple(hop for hop in self.hops if hop.after != hop.before + 1)

    def into(self, stage: int) -> list[Hop]:
        """The hops that make up the inputs of a stage, in their order."""
        return [hop for hop in reversed(self.hops) if hop.after == stage]

    def out_of(self, stage: int) -> list[Hop]:
        """The hops that make up the outputs of a stage, in their order."""
        return [hop for hop in self.hops if hop.before == stage]

    def stage_module(self, index: int, module: nn.Module, copies: bool = False) -> nn.Module:
        """The module as an executor calls it: flat tensors in, flat tensors out.

        Args:
            copies: whether what is passed on untouched leaves as a copy.
        """
        plan = self.stages[index]
        if plan.is_flat:
            return module
        return WiredStage(index, module, plan, copies, is_last=index == len(self.stages) - 1)


class WiredStage(nn.Module):
    """A stage around its module: builds its arguments of the tensors that arrived, and takes its result apart.

    What the last one returns is the loss's, as it is.

    Raises, when it is called:
        ValueError: the module returns another structure or other plain values than in the try-out.
    """

    def __init__(
        self, index: int, module: nn.Module, plan: StagePlan, copies: bool = False, is_last: bool = False
    ) -> None:
        super().__init__()
        self._is_last = is_last
        self.module, self._index, self._plan = module, index, plan
        self._own: Callable[[torch.Tensor], torch.Tensor] = torch.clone if copies else _itself

    def forward(self, *arrived: torch.Tensor) -> Any:
        plan = self._plan
        keywords = {name: argument.of(arrived) for name, argument in plan.keywords.items()}
        result = self.module(*(argument.of(arrived) for argument in plan.arguments), **keywords)
        if self._is_last:
            return result.output if isinstance(result, WithSkips) else result
        leaves, structure = leaves_of(result)
        if structure != plan.result:
            raise ValueError(f"stage {self._index} returns another structure than for the first microbatch")
        for place, value in plan.plain.items():
            if not same_plain(leaves[place], value):
                raise ValueError(
                    f"stage {self._index} returns {leaves[place]!r}, and {value!r} for the first microbatch; valid: "
                    "tensors, and plain values that are equal for all microbatches"
                )
        for place, first in plan.same.items():
            if leaves[place] is not leaves[first]:
                raise ValueError(f"stage {self._index} returns two tensors that were one for the first microbatch")
        left = tuple(leaves[place] if made else self._own(arrived[place]) for made, place in plan.leaving)
        return left[0] if len(left) == 1 else left


def leaves_of(result: Any) -> tuple[list[Any], Structure]:
    """The leaves of what a stage returns, its skips last and by name."""
    skips: dict[str, Any] = {}
    if isinstance(result, WithSkips):
        result, skips = result.output, {name: result.skips[name] for name in sorted(result.skips)}
    return flatten((arguments(result), skips) if skips else arguments(result))


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
