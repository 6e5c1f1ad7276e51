"""From a recorded forward and the calls of each stage to the stage modules, and the proof that they are the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pipezoo.errors import ArgumentError, ConfigError, first_line
from pipezoo.skips import Skip
from pipezoo.splitters._copies import copies
from pipezoo.splitters._dry_run import run, same_bits
from pipezoo.splitters._replay_gate import Gate, ghosts_of
from pipezoo.splitters._replay_places import Found, value_names
from pipezoo.splitters._replay_record import Form, Value
from pipezoo.splitters._replay_stage import End, Fill, ReplayStage, Run, StageBoard, Unknown


def stages_of(
    model: nn.Module, found: Found, groups: Sequence[range], example: tuple[Tensor, ...]
) -> Sequence[nn.Module]:
    """A stage for each group of calls. Raises ValueError when they do not reproduce the model."""
    theirs = copies([model], [*model.parameters()])[0]
    if found.record.draws:
        theirs.eval()
    expected = run([theirs], example)
    _check_statistics(found, groups)
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


def _check_statistics(found: Found, groups: Sequence[range]) -> None:
    """A module whose forward changes its buffers belongs to one stage: several would change them in another order."""
    stages: dict[str, set[int]] = {}
    for stage, group in enumerate(groups):
        for index in group:
            stages.setdefault(found.record.calls[index].name, set()).add(stage)
    for name, used in stages.items():
        buffers = [buffer for buffer in found.record.changing if buffer.startswith(f"{name}.")]
        if len(used) > 1 and buffers:
            where = f"stages {', '.join(map(str, sorted(used)))}"
            why = f"{where} call it and change its {min(buffers).rpartition('.')[2]}, each microbatch in another order "
            raise ArgumentError("split", name, why + "than one device; give each its own module, or split.at one stage")


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
        self.sources = [self._used(stage) for stage in range(len(groups))]
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
            own_atom = name in called
            module = atom if own_atom else ghosts[name]
            instead[id(atom)] = Gate(module, name, board, own_atom, shared=not own_atom and not borrowed)
        skeleton = copies([self.model], instead=instead)[0]
        for module in _containers(skeleton):
            for name in [name for name, p in module._parameters.items() if p is not None and not _is_parameter(p)]:
                module.__dict__[name] = module._parameters.pop(name)
        outputs, skips = self._leaving(stage)
        inputs = self._leaving(stage - 1)[0] if stage else tuple(map(_input, range(len(self.forms))))
        sources = self.sources[stage] if stage else {}
        takes = {name: source for name, source in sources.items() if name not in inputs}
        return ReplayStage(skeleton, board, inputs, takes, outputs, skips, self.forms, called, borrowed)

    def _board(self, stage: int) -> StageBoard:
        steps: list[Run | Fill | End] = []
        sent = {name for later in self.sources[stage + 1 :] for name in later}
        for index, call in enumerate(self.calls[:-1]):
            values = [Value(index, place) for place in range(len(call.leaves))]
            if self.home[index] == stage:
                steps.append(
                    Run(
                        tuple(
                            (v.place, self.names[v], v.place in call.changed) for v in values if self.names[v] in sent
                        )
                    )
                )
            elif self.home[index] > stage:
                steps.append(End())
            else:
                assert call.shape is not None
                taken = tuple(
                    (v.place, self.names[v], v.place in call.changed)
                    for v in values
                    if self.names[v] in self.sources[stage]
                )
                steps.append(Fill(call.leaves, call.shape, taken))
        return StageBoard(tuple(call.name for call in self.calls[:-1]), tuple(steps))

    def _used(self, stage: int) -> dict[str, Skip]:
        """What a stage uses of what it does not make: names, each with the stage that makes it."""
        own = [call for index, call in enumerate(self.calls) if self.home[index] == stage]
        read = sorted({value for call in own for value in call.reads if self.home[value.call] < stage})
        used = {self.names[value]: Skip(self.home[value.call], self.names[value]) for value in read}
        for index in range(len(self.forms)):
            if self.every_input or not self.forms[index].shows or any(index in call.inputs for call in own):
                used[_input(index)] = Skip(0, _input(index))
        return used

    def _leaving(self, stage: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of what a stage returns: for the next one, and for later ones."""
        made = {name for used in self.sources[stage + 1 :] for name, source in used.items() if source.stage == stage}
        following = self.sources[stage + 1] if stage + 1 < len(self.groups) else {}
        output = [name for name in following if name in made] or sorted(made)[:1]
        if not output and stage + 1 < len(self.groups):  # it makes nothing that anybody uses: something has to cross
            output = [next(iter(self.sources[stage]), _input(0))]
        return tuple(output), tuple(sorted(made & self._beyond(stage)))

    def _beyond(self, stage: int) -> set[str]:
        """What is used behind the next stage."""
        return {name for used in self.sources[stage + 2 :] for name in used}

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


def _input(index: int) -> str:
    return f"input:{index}"


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
    name = type(model).__name__
    try:
        with _nan(stages, bases):
            twins = copies(stages, [p for stage in stages for p in stage.parameters()])
            if draws:
                for twin in twins:
                    twin.eval()
            ours = run(twins, example)
    except (Unknown, ConfigError):
        raise
    except Exception as error:
        why = f"its stages fail where it does not: {first_line(error)}; {ADVICE}"
        raise ArgumentError("model", name, why) from error
    if not same_bits(ours, expected):
        raise ArgumentError("model", name, f"its stages give another output than it does; {ADVICE}")


ADVICE = "values reach later modules by a way that autograd does not see; split.at moves the cuts"


@contextmanager
def _nan(stages: Sequence[ReplayStage], bases: Sequence[Tensor]) -> Iterator[None]:
    """Have every placeholder be NaN."""
    _blank_out(stages, bases, float("nan"))
    try:
        yield
    finally:
        _blank_out(stages, bases, 0.0)


def _blank_out(stages: Sequence[ReplayStage], bases: Sequence[Tensor], value: float) -> None:
    for base in bases:
        _fill(base, value)
    for stage in stages:
        stage.board.blank = value


def _fill(tensor: Tensor, value: float) -> None:
    if tensor.is_floating_point() or tensor.is_complex():
        tensor.fill_(value)
