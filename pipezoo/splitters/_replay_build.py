"""From a recorded forward and the calls of each stage to the stage modules, and the proof that they are the model."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipezoo.errors import ArgumentError, first_line
from pipezoo.splitters._dry_run import handles_of, run, twin_of
from pipezoo.splitters._replay_gate import Gate, copy_with, ghosts_of
from pipezoo.splitters._replay_places import Found, crossing, value_names
from pipezoo.splitters._replay_record import Form, Value
from pipezoo.splitters._replay_stage import End, Fill, ReplayStage, Run, StageBoard, Unknown


def stages_of(
    model: nn.Module, found: Found, groups: Sequence[range], example: tuple[Tensor, ...]
) -> Sequence[nn.Module]:
    """A stage for each group of calls. Raises ValueError when they do not reproduce the model."""
    theirs = twin_of(model, share_buffers=False)
    if found.record.draws:
        theirs.eval()
    expected = run([theirs], example)
    for every_input in (False, True):  # a model may look at an input without computing anything from it: if mask.any()
        plan = _Plan(model, found, groups, example, every_input)
        stages = [plan.stage(index) for index in range(len(groups))]
        try:
            prove(model, stages, example, expected, found.record.draws, plan.bases)
            break
        except ArgumentError:
            if every_input:
                raise
    return stages


class _Plan:
    """What every stage is made from."""

    def __init__(
        self,
        model: nn.Module,
        found: Found,
        groups: Sequence[range],
        example: tuple[Tensor, ...],
        every_input: bool,
    ) -> None:
        self.model, self.calls, self.groups, self.every_input = model, found.record.calls, groups, every_input
        self.changing = found.record.changing
        self.forms = [Form(tuple(t.shape), tuple(t.stride()), t.dtype) for t in example]
        self.home = [stage for stage, group in enumerate(groups) for _ in group] + [len(groups) - 1]
        self.names = value_names(self.calls)
        self.atoms = {name: model.get_submodule(name) for name in found.atoms}
        self.inside = {id(p) for atom in self.atoms.values() for p in atom.parameters()}
        self.parameters = dict(model.named_parameters())
        self.bases: list[Tensor] = []  # what the ghosts' parameters are expanded from
        self.ghosts = ghosts_of(self.atoms, self._blank)

    def stage(self, stage: int) -> ReplayStage:
        called = tuple(dict.fromkeys(self.calls[index].name for index in self.groups[stage]))
        needed = {p for index, call in enumerate(self.calls) if self.home[index] == stage for p in call.parameters}
        kept = {name: self.parameters[name] for name in needed}
        own = {id(p) for name in called for p in self.atoms[name].parameters()}
        borrowed = {name: p for name, p in kept.items() if id(p) in self.inside and id(p) not in own}
        ghosts = self.ghosts
        if borrowed:
            ghosts = ghosts_of(self.atoms, self._blank, list(borrowed.values()))
        board = self._board(stage)
        instead: dict[int, Any] = {id(p): p if name in kept else self._solid(p) for name, p in self.parameters.items()}
        for name, buffer in self.model.named_buffers():
            private = name in self.changing and stage < len(self.groups) - 1
            instead[id(buffer)] = buffer.clone() if private else buffer
        for name, atom in self.atoms.items():
            instead[id(atom)] = Gate(atom if name in called else ghosts[name], name, board, name in called)
        skeleton = copy_with(self.model, instead)
        for module in _containers(skeleton):
            for name in [name for name, p in module._parameters.items() if p is not None and not _is_parameter(p)]:
                module.__dict__[name] = module._parameters.pop(name)
        last = stage == len(self.groups) - 1
        outputs = () if last else self._entering(stage + 1)
        return ReplayStage(skeleton, board, self._entering(stage), outputs, self.forms, called, borrowed)

    def _board(self, stage: int) -> StageBoard:
        steps: list[Run | Fill | End] = []
        sent = {value for later in self.groups[stage + 1 :] for value in crossing(self.calls, later.start)}
        arrived = set(crossing(self.calls, self.groups[stage].start))
        for index, call in enumerate(self.calls[:-1]):
            values = [Value(index, place) for place in range(len(call.leaves))]
            if self.home[index] == stage:
                steps.append(Run(tuple((v.place, self.names[v], v.place in call.changed) for v in values if v in sent)))
            elif self.home[index] > stage:
                steps.append(End())
            else:
                assert call.shape is not None
                taken = tuple((v.place, self.names[v], v.place in call.changed) for v in values if v in arrived)
                steps.append(Fill(call.leaves, call.shape, taken))
        return StageBoard(tuple(call.name for call in self.calls[:-1]), tuple(steps))

    def _entering(self, stage: int) -> tuple[str, ...]:
        """The names of what a stage takes: all inputs, or what crosses the cut before it."""
        if stage == 0:
            return tuple(f"input:{index}" for index in range(len(self.forms)))
        values = crossing(self.calls, self.groups[stage].start)
        wanted = [index for index in range(len(self.forms)) if self._reads_input(stage, index)]
        return (*(self.names[value] for value in values), *(f"input:{index}" for index in wanted))

    def _reads_input(self, stage: int, index: int) -> bool:
        """Whether this stage or a later one reads an input of the model; the graph says it of floats alone."""
        dtype = self.forms[index].dtype
        if self.every_input or not (dtype.is_floating_point or dtype.is_complex):
            return True
        return any(index in call.inputs for i, call in enumerate(self.calls) if self.home[i] >= stage)

    def _blank(self, like: Tensor) -> Tensor:
        """A tensor of the same form that takes no memory."""
        base = torch.zeros((), dtype=like.dtype, device=like.device)
        self.bases.append(base)
        return base.expand(like.shape)

    def _solid(self, like: Tensor) -> Tensor:
        """A tensor of the same form that can be viewed: of what belongs to no module that is not cut."""
        if id(like) in self.inside:
            return self._blank(like)
        tensor = torch.zeros_like(like.detach())
        self.bases.append(tensor)
        return tensor


def _containers(module: nn.Module) -> Iterator[nn.Module]:
    """The modules of a copy that are no gates, nor inside of one."""
    if not isinstance(module, Gate):
        yield module
        for child in module.children():
            yield from _containers(child)


def _is_parameter(tensor: Any) -> bool:
    return isinstance(tensor, nn.Parameter)


def prove(
    model: nn.Module,
    stages: Sequence[ReplayStage],
    example: tuple[Tensor, ...],
    expected: Any,
    draws: bool,
    bases: Sequence[Tensor],
) -> None:
    """Run the chain of the stages with every placeholder NaN, and hold its output against the model's.

    A model that draws random numbers is proved as it is in evaluation, where it draws none.

    Raises:
        ValueError: they are not the same bits.
    """
    name, twins = type(model).__name__, _twins(stages, bases)
    if draws:
        for twin in twins:
            twin.eval()
    try:
        ours = run(twins, example)
    except Unknown:
        raise
    except Exception as error:
        why = f"its stages fail where it does not: {first_line(error)}; {ADVICE}"
        raise ArgumentError("model", name, why) from error
    if not same_bits(ours, expected):
        raise ArgumentError("model", name, f"its stages give another output than it does; {ADVICE}")


ADVICE = "values reach later modules by a way that autograd does not see; split.at moves the cuts"


def _twins(stages: Sequence[ReplayStage], bases: Sequence[Tensor]) -> list[nn.Module]:
    """Copies that share the parameters, whose placeholders are NaN."""
    for base in bases:
        _fill(base, float("nan"))
    for stage in stages:
        stage.board.blank = float("nan")
    shared: dict[int, Any] = {id(p): p for stage in stages for p in stage.parameters()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return copy.deepcopy(list(stages), {**shared, **handles_of(stages)})  # type: ignore[return-value]
    finally:
        for stage in stages:
            stage.board.blank = 0.0
        for base in bases:
            _fill(base, 0.0)


def _fill(tensor: Tensor, value: float) -> None:
    if tensor.is_floating_point() or tensor.is_complex():
        tensor.fill_(value)


def same_bits(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(same_bits(x, y) for x, y in zip(a, b, strict=True))
    return False
