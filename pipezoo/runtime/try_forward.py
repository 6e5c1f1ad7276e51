"""One microbatch forwards through copies of the stages: what it shows of the values that cross between them.

    stage 0 makes h ──► Value(users 1, 3) ──► received in 1: hop 0 → 1 ──► received in 3: hop 1 → 3

Every value is followed from the stage that makes it to each that uses it. What a stage receives is a leaf without a
graph, as in a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pipezoo.errors import first_line
from pipezoo.runtime.stages import as_sent, empty
from pipezoo.runtime.trees import Structure, check_leaf, flatten, map_tensors
from pipezoo.runtime.wiring import Argument, Hop, Leaf, StagePlan, Wiring, leaves_of
from pipezoo.skips import Skip, WithSkips, arguments, taken

CHANGED_LEAF = "leaf Variable that requires grad"
BEFORE_ALL = -1  # who holds the inputs of the model


@dataclass(eq=False)
class Value:
    """A tensor on its way.

    Args:
        tensor: as it is at ``holder``, the stage that had it last.
        place: where it is there, as in :class:`~pipezoo.runtime.wiring.StagePlan`.
        users: the stages that take it after ``holder``.
        number: of an input of the model, its place among them. As long as ``BEFORE_ALL`` holds it, every stage has it
            from its own rank's batch.
    """

    tensor: torch.Tensor
    holder: int
    place: tuple[bool, int] = (False, 0)
    users: set[int] = field(default_factory=set)
    number: int = -1


Nested = tuple[
    list[Value | Leaf], Structure
]  # one argument: its leaves, on their way or plain, and how they are nested


@dataclass(eq=False)
class Ran:
    """A stage that ran once.

    Args:
        values, arrived: what it took, as values and as the leaves that they were here.
        given: the numbers of those, the last ones, that are inputs of the model from this rank's batch.
        leaves, structure: of what it returned.
        returned: that itself.
        leaving: by the stage that took it next, each value with the tensor that it was here, its place and its form.
    """

    values: list[Value]
    arrived: list[torch.Tensor]
    arguments: tuple[Argument, ...]
    keywords: dict[str, Argument]
    given: tuple[int, ...] = ()
    leaves: list[Any] = field(default_factory=list)
    structure: Structure = field(default_factory=Structure)
    returned: Any = None
    leaving: dict[int, list[tuple[Value, torch.Tensor, tuple[bool, int], torch.Tensor]]] = field(default_factory=dict)

    def sent(self) -> list[tuple[Value, torch.Tensor]]:
        """What left it, in the order of its plan's outputs."""
        return [(value, tensor) for after in sorted(self.leaving) for value, tensor, _, _ in self.leaving[after]]


def try_forward(
    originals: Sequence[nn.Module], modules: Sequence[nn.Module], example: Sequence[Any], relay: bool = False
) -> tuple[list[Ran], Wiring]:
    """Run one microbatch.

    Args:
        originals: the stages, of which ``modules`` are copies.
        example: the inputs of one microbatch, positional.
        relay: whether what a later stage takes goes through every stage in between.

    Raises:
        ValueError: a stage fails, takes a skip that nobody makes, or returns what cannot cross.
    """
    return _Trial(originals, modules, relay).run(example)


class _Trial:
    """The values on their way, and what is known of them."""

    def __init__(self, originals: Sequence[nn.Module], modules: Sequence[nn.Module], relay: bool) -> None:
        self._originals, self._modules, self._relay = originals, modules, relay
        self._values: list[Value] = []
        self._skips: dict[Skip, Nested] = {}
        self._ran: list[Ran] = []
        self._users: dict[Skip, set[int]] = {}
        for index, module in enumerate(modules):
            for skip in taken(module).values():
                self._users.setdefault(skip, set()).add(index)

    def run(self, example: Sequence[Any]) -> tuple[list[Ran], Wiring]:
        chain = [self._nested(argument, BEFORE_ALL, {0}) for argument in example]
        for number, value in enumerate(self._values):
            value.number = number
        for index in range(len(self._modules)):
            ran = self._receive(index, chain, self._taken(index))
            self._ran.append(ran)
            result = self._call(index, ran)
            if index < len(self._modules) - 1:
                chain = self._leave(index, ran, result)
        return self._ran, Wiring(tuple(map(self._plan, range(len(self._ran)))), tuple(self._hops()))

    def _taken(self, index: int) -> dict[str, Nested]:
        """The skips of one stage, by keyword."""
        for skip in taken(self._modules[index]).values():
            if skip not in self._skips:
                made = ", ".join(known.name for known in self._skips if known.stage == skip.stage) or "none"
                raise ValueError(
                    f"stage {index} takes the skip {skip.name!r} of stage {skip.stage}, whose skips are: {made}; "
                    "valid: a skip that an earlier stage returns"
                )
        return {name: self._skips[skip] for name, skip in taken(self._modules[index]).items()}

    def _receive(self, index: int, chain: Sequence[Nested], skips: dict[str, Nested]) -> Ran:
        """Every value that this stage takes becomes a leaf of its own here."""
        named = [value for leaves, _ in (*chain, *skips.values()) for value in leaves if isinstance(value, Value)]
        values = list(dict.fromkeys([*named, *(value for value in self._values if index in value.users)]))
        values.sort(key=lambda value: -value.holder)  # the nearest first, and else in this order
        arrived = [value.tensor for value in values]
        given = tuple(value.number for value in values if value.holder == BEFORE_ALL) if index else ()
        if index:
            sent = len(values) - len(given)
            arrived = [*_leaves(arrived[:sent]), *(tensor.detach() for tensor in arrived[sent:])]
        for place, (value, tensor) in enumerate(zip(values, arrived, strict=True)):
            if value.holder != BEFORE_ALL:
                way = self._ran[value.holder].leaving.setdefault(index, [])
                way.append((value, value.tensor, value.place, empty((tensor,))[0]))
            if value.holder != BEFORE_ALL or self._relay:
                value.holder = index
            value.tensor, value.place = tensor, (False, place)
            value.users.discard(index)

        def argument(nested: Nested) -> Argument:
            leaves, structure = nested
            return Argument(structure, tuple(v if isinstance(v, Leaf) else Leaf(v.place[1]) for v in leaves))

        return Ran(values, arrived, tuple(map(argument, chain)), {name: argument(skips[name]) for name in skips}, given)

    def _call(self, index: int, ran: Ran) -> Any:
        versions = [tensor._version for tensor in ran.arrived]
        try:
            result = _output(self._originals[index], self._modules[index], ran)
            ran.leaves, ran.structure = leaves_of(result)
            ran.returned = result
        except Exception as error:
            shapes = ", ".join(f"{tuple(tensor.shape)} {str(tensor.dtype)[6:]}" for tensor in ran.arrived)
            raise ValueError(f"stage {index} fails on inputs {shapes}: {first_line(error)}") from error
        for value, tensor, version in zip(ran.values, ran.arrived, versions, strict=True):
            if tensor._version != version:  # it is no input of the model any more, but what this stage made of it
                value.holder = index
        output = result.output if isinstance(result, WithSkips) else result
        try:
            for leaf in ran.leaves if index < len(self._modules) - 1 else ():  # the last one's go to the loss alone
                check_leaf(leaf)
        except ValueError as error:
            raise ValueError(f"stage {index} returns what cannot cross: {error}") from None
        if not any(isinstance(leaf, torch.Tensor) for leaf in flatten(output)[0]):
            raise ValueError(f"stage {index} returns {type(output).__name__} without a tensor; a stage returns tensors")
        return result

    def _leave(self, index: int, ran: Ran, result: Any) -> list[Nested]:
        """What a stage returned goes on its way: its output to the next stage, its skips to those that take them."""
        here = {id(value.tensor): value for value in ran.values}
        for place, leaf in enumerate(ran.leaves):
            if isinstance(leaf, torch.Tensor):
                value = here.setdefault(id(leaf), Value(leaf, index))
                value.place = value.place if value.place[0] else (True, place)
        output, skips = (result.output, result.skips) if isinstance(result, WithSkips) else (result, {})
        for name in sorted(skips):
            skip = Skip(index, name)
            users = self._users.get(skip, set())
            if self._relay and users:
                users = set(range(index + 1, max(users) + 1))
            self._skips[skip] = self._nested(skips[name], index, users, here)
        chain = [self._nested(argument, index, {index + 1}, here) for argument in arguments(output)]
        follow = [leaf for leaves, _ in chain for leaf in leaves if isinstance(leaf, Value)]
        if all(value.holder == BEFORE_ALL for value in follow):  # something has to cross each cut
            follow[0].holder = index
        return chain

    def _nested(self, argument: Any, holder: int, users: set[int], here: dict[int, Value] | None = None) -> Nested:
        """An argument with values on their way in place of its tensors."""
        leaves, structure = flatten(argument)
        nested: list[Value | Leaf] = []
        for leaf in leaves:
            if not isinstance(leaf, torch.Tensor):
                nested.append(Leaf(None, leaf))
                continue
            value = Value(leaf, holder) if here is None else here[id(leaf)]
            value.users |= users
            self._values += [value] if value not in self._values else []
            nested.append(value)
        return nested, structure

    def _hops(self) -> Iterable[Hop]:
        for before, ran in enumerate(self._ran):
            for after in sorted(ran.leaving):
                yield Hop(before, after, tuple(form for *_, form in ran.leaving[after]))

    def _plan(self, index: int) -> StagePlan:
        ran = self._ran[index]
        left = [(place, form) for after in sorted(ran.leaving) for _, _, place, form in ran.leaving[after]]
        if index == len(self._ran) - 1:
            tensors = [(i, leaf) for i, leaf in enumerate(ran.leaves) if isinstance(leaf, torch.Tensor)]
            left = [((True, i), empty((leaf,))[0]) for i, leaf in tensors]
        first: dict[int, int] = {}
        same = {i: first[id(leaf)] for i, leaf in enumerate(ran.leaves) if first.setdefault(id(leaf), i) != i}
        return StagePlan(
            inputs=empty(tuple(ran.arrived)),
            given=ran.given,
            outputs=tuple(form for _, form in left),
            arguments=ran.arguments,
            keywords=ran.keywords,
            result=ran.structure,
            plain={i: leaf for i, leaf in enumerate(ran.leaves) if not isinstance(leaf, torch.Tensor)},
            same={i: j for i, j in same.items() if isinstance(ran.leaves[i], torch.Tensor)},
            leaving=tuple(place for place, _ in left),
        )


def _leaves(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors as they arrive at a stage.

    Where none of them learns, the gradient still has to flow to it: torch's input gradient of a stage leaves out the
    weights' gradients otherwise.
    """
    learns = any(tensor.requires_grad for tensor in tensors)
    return [
        as_sent(tensor).requires_grad_(tensor.requires_grad if learns else tensor.is_floating_point())
        for tensor in tensors
    ]


def _output(original: nn.Module, module: nn.Module, ran: Ran) -> Any:
    """What a stage returns. One that changes what it receives in place is given a copy, here and in the run.

    What crossed a cut is a leaf, which autograd lets nobody change; on one device it is none.
    """

    def call() -> Any:
        keywords = {name: argument.of(ran.arrived) for name, argument in ran.keywords.items()}
        return module(*(argument.of(ran.arrived) for argument in ran.arguments), **keywords)

    try:
        return call()
    except RuntimeError as error:
        if CHANGED_LEAF not in str(error):
            raise
        original.register_forward_pre_hook(_no_leaves, with_kwargs=True)
        module.register_forward_pre_hook(_no_leaves, with_kwargs=True)
        return call()


def _no_leaves(module: nn.Module, values: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
    def copied(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone() if tensor.is_leaf and tensor.requires_grad else tensor

    return map_tensors(copied, values), map_tensors(copied, keywords)
