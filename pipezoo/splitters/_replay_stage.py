"""A stage that runs the model's own forward, with what other stages compute replaced.

    calls     embed    layers.0   layers.1 | layers.2  layers.3 | norm   head
    stage 1     .         .          h     |   run       run    | stop          . placeholder of the recorded form
                                                                                h what arrived
Masks, positions, caches and whatever else Python does between the modules runs on every stage, from the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipezoo.errors import ArgumentError
from pipezoo.skips import Skip, WithSkips
from pipezoo.splitters._replay_gate import GHOST, Gate
from pipezoo.splitters._replay_record import Form, Opaque
from pipezoo.splitters._trees import Shape, build, flatten


class Stop(BaseException):
    """The stage is done. No Exception, which a model's own ``except`` would catch."""


class Unknown(ArgumentError):
    """What only the forward of another stage knows is asked for."""


class Absent:
    """In the place of an object that another stage's module returned: fails when it is looked at."""

    def __init__(self, kind: str, name: str) -> None:
        self.__dict__.update(kind=kind, name=name)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        raise Unknown("model", self.name, f"returns a {self.kind} that another stage needs", "tensors, plain values")


class Run(NamedTuple):
    """The call is this stage's: run its module and keep the outputs ``kept`` (place, name, whether as a copy)."""

    kept: tuple[tuple[int, str, bool], ...] = ()


class Fill(NamedTuple):
    """The call is another stage's: what arrived (place, name, whether as a copy), and placeholders."""

    leaves: tuple[Any, ...]
    shape: Shape
    arrived: tuple[tuple[int, str, bool], ...]


class End(NamedTuple):
    """The call is a later stage's: nothing more to do."""


@dataclass
class StageBoard:
    """What the gates of one stage share: where in the forward it is, what arrived, what it made."""

    names: tuple[str, ...]
    steps: tuple[Run | Fill | End, ...]
    blank: float = 0.0
    running: bool = False
    count: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    arrived: Mapping[str, Tensor] = field(default_factory=dict)
    made: dict[str, Tensor] = field(default_factory=dict)
    blanks: dict[Any, Tensor] = field(default_factory=dict)

    def call(self, gate: Gate, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.running:  # a checkpoint around the gate computes once more
            return _once_more(gate)(*args, **kwargs)
        index, self.count = self.count, self.count + 1
        if index >= len(self.names) or self.names[index] != gate._pipezoo_name:
            then = f"{self.names[index]} came" if index < len(self.names) else "the forward ended"
            raise ArgumentError(
                "model", gate._pipezoo_name, f"is called where {then} when the model was cut", "one flow for all data"
            )
        step = self.steps[index]
        if isinstance(step, Run):
            result = gate._pipezoo_atom(*args, **kwargs)
            if step.kept:
                leaves, _ = flatten(result)
                for place, name, as_copy in step.kept:
                    self.made[name] = leaves[place].clone() if as_copy else leaves[place]
            return result
        if isinstance(step, End):
            raise Stop
        values = [self._blank(leaf, gate._pipezoo_name) for leaf in step.leaves]
        for place, name, as_copy in step.arrived:
            values[place] = self.arrived[name].clone() if as_copy else self.arrived[name]
        return build(step.shape, values)

    def _blank(self, leaf: Any, name: str) -> Any:
        if isinstance(leaf, Opaque):
            return Absent(leaf.kind, name)
        return self.blank_of(leaf) if isinstance(leaf, Form) else leaf

    def blank_of(self, form: Form) -> Tensor:
        """A placeholder; what is done to it in place harms nobody."""
        key = (form, self.device)
        if key not in self.blanks:
            tensor = torch.empty_strided(form.shape, form.stride, dtype=form.dtype, device=self.device)
            continuous = form.dtype.is_floating_point or form.dtype.is_complex
            self.blanks[key] = tensor.fill_(self.blank if continuous else 0)
        return self.blanks[key].detach()


def _once_more(gate: Gate) -> nn.Module:
    """The module that a checkpoint runs again, in the backward."""
    if "_pipezoo_atom" not in gate._modules:
        raise ArgumentError(
            "model",
            gate._pipezoo_name,
            "is recomputed in a backward together with modules of another stage, by a checkpoint around both",
            "split.at with the names of what is checkpointed",
        )
    return gate._pipezoo_atom


class ReplayStage(nn.Module):
    """``forward`` takes the values named ``inputs`` positionally, and those of ``takes`` by name.

    A value is ``input:k``, an input of the model, or ``module#n:place``, an output of a call. It returns those named
    ``outputs`` for the next stage and those named ``skips`` for later ones; the last stage what the model returns.

    Args:
        model: a copy of the model with gates.
        forms: of all inputs of the model, for those that this stage does not take.
        names: of the modules that it runs.
        borrowed: parameters of other stages' modules that it uses without calling them, by name.
    """

    def __init__(
        self,
        model: nn.Module,
        board: StageBoard,
        inputs: tuple[str, ...],
        takes: Mapping[str, Skip],
        outputs: tuple[str, ...],
        skips: tuple[str, ...],
        forms: Sequence[Form],
        names: tuple[str, ...],
        borrowed: Mapping[str, nn.Parameter],
    ) -> None:
        super().__init__()
        self.model, self.board, self.names, self.forms = model, board, names, tuple(forms)
        self.inputs, self.takes, self.outputs, self.skips = inputs, dict(takes), outputs, skips
        for name, parameter in borrowed.items():
            self.register_parameter(name.replace(".", "/"), parameter)

    def forward(self, *values: Tensor, **taken: Tensor) -> Any:
        board, given = self.board, {**dict(zip(self.inputs, values, strict=True)), **taken}
        board.count, board.arrived, board.made, board.device = 0, given, {}, values[0].device
        board.running = True
        try:
            inputs = [given.get(f"input:{index}") for index in range(len(self.forms))]
            return self.model(
                *(board.blank_of(form) if i is None else i for i, form in zip(inputs, self.forms, strict=True))
            )
        except Stop:
            known = {**given, **board.made}
            output = tuple(known[name] for name in self.outputs)
            skips = {name: known[name] for name in self.skips}
            result = output[0] if len(output) == 1 else output
            return WithSkips(result, skips) if skips else result
        finally:
            board.running, board.arrived, board.made = False, {}, {}

    def named_parameters(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Any:
        for name, parameter in super().named_parameters(prefix, recurse, remove_duplicate):
            if not name.endswith(GHOST):
                yield name, parameter
