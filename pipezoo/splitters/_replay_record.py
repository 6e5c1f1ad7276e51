"""One forward of a model, watched: which modules are called in which order, and what each of them reads.

    ids ──► embed ──a──► layers.0 ──b──► layers.1 ──c──► head ──► logits
                 └──────────────────── + ─────────┘

    call      0 embed    1 layers.0    2 layers.1       3 head           4 end of the forward
    reads                (0, 0)        (1, 0), (0, 0)   (2, 0)           (3, 0)

Every floating output of a call goes on as a leaf of the autograd graph, so that the graph of what a later call receives
ends at exactly the outputs, parameters and inputs that it is computed from. What the graph does not show (integers,
what is detached) is the business of the proof.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipezoo.errors import ArgumentError, ConfigError, first_line
from pipezoo.splitters._copies import copies
from pipezoo.splitters._dry_run import seed, state_kept
from pipezoo.splitters._replay_gate import Gate
from pipezoo.splitters._trees import Shape, build, flatten, map_tensors, tensors_in
from pipezoo.splitters._weigh import flops_of, num_parameters, seconds_of


class Value(NamedTuple):
    """An output of a call: the ``place``-th leaf of what it returned."""

    call: int
    place: int


class Form(NamedTuple):
    """What a tensor was, without its memory."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @property
    def shows(self) -> bool:
        """Whether autograd shows where its values go."""
        return self.dtype.is_floating_point or self.dtype.is_complex


class Opaque(NamedTuple):
    """What a call returned that is neither a tensor nor a plain value."""

    kind: str


@dataclass(frozen=True)
class Call:
    """One call of a module that is not cut, or last the end of the forward.

    Args:
        name: of the module in the model; "" for the end.
        reads: the outputs of calls before that its inputs are computed from.
        inputs: indices of the model's floating inputs of which the same is true.
        parameters: names of the parameters that what lies between the modules uses to compute its inputs.
        leaves: its outputs: the form of a tensor, an :class:`Opaque`, or the plain value itself; and their ``shape``.
        changed: places of outputs that what follows changes in place.
        weight: by the measure asked for.
    """

    name: str
    reads: frozenset[Value] = frozenset()
    inputs: frozenset[int] = frozenset()
    parameters: frozenset[str] = frozenset()
    leaves: tuple[Any, ...] = ()
    shape: Shape | None = None
    changed: frozenset[int] = frozenset()
    weight: float = 0.0
    changes_inputs: bool = False


@dataclass(frozen=True)
class Record:
    """The calls in their order, the last one the end of the forward.

    Args:
        output: what the model returns.
        draws: whether the forward drew random numbers.
        changing: names of buffers that the forward changes.
    """

    calls: tuple[Call, ...]
    output: Any
    draws: bool
    changing: frozenset[str]


def record(model: nn.Module, atoms: Sequence[str], example: tuple[Tensor, ...], by: str, repeats: int) -> Record:
    """Run ``model`` once on the example. It is left as it was.

    Raises:
        ValueError: it fails on the example, or one of its modules runs where nothing can be recorded.
    """
    twin = copies([model], [*model.parameters()])[0]
    recorder = _Recorder(twin, by, repeats)
    gates = {id(twin.get_submodule(name)): Gate(twin.get_submodule(name), name, recorder, True) for name in atoms}
    gated = copies([twin], [*twin.parameters(), *twin.buffers()], gates)[0]
    before = {name: buffer._version for name, buffer in twin.named_buffers()}
    with _all_learn(model), state_kept(_devices(example)), torch.enable_grad():
        seed(0)
        state = torch.get_rng_state()
        try:
            output = gated(*(recorder.given(index, tensor) for index, tensor in enumerate(example)))
        except (ArgumentError, ConfigError):
            raise
        except Exception as error:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in example)
            why = f"the forward of {type(model).__name__} fails on it: {first_line(error)}"
            raise ArgumentError("example", shapes, why) from error
        draws = not torch.equal(state, torch.get_rng_state())
        calls = recorder.finished(output)
    changing = frozenset(name for name, buffer in twin.named_buffers() if buffer._version != before[name])
    return Record(calls, output, draws, changing)


@dataclass
class _Recorder:
    """The board of a recording: it runs every module, and notes."""

    model: nn.Module
    by: str
    repeats: int
    calls: list[Call] = field(default_factory=list)
    origin: dict[int, Value | int | str] = field(default_factory=dict)  # by the id of a leaf: output, input, parameter
    alive: list[Tensor] = field(default_factory=list)
    known: dict[Any, frozenset[Any]] = field(default_factory=dict)  # by node of the graph: the origins that it leads to
    handed: list[tuple[Value, Tensor, int]] = field(default_factory=list)
    whole: list[Value] = field(default_factory=list)  # outputs that no graph can follow

    def __post_init__(self) -> None:
        self.origin |= {id(parameter): name for name, parameter in self.model.named_parameters()}

    def given(self, index: int, tensor: Tensor) -> Tensor:
        """An input of the model, as one whose way can be followed."""
        if not _is_continuous(tensor):
            return tensor.clone()
        return self._leaf(index, tensor)

    def call(self, gate: Gate, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = gate._pipezoo_name
        if not torch.is_grad_enabled():
            raise ArgumentError(
                "model",
                type(self.model).__name__,
                f"its module {name} runs without gradients, as inside of checkpoint(..., use_reentrant=True)",
                "use_reentrant=False",
            )
        received = list(tensors_in((args, kwargs)))
        call = self._noted(name, received)
        index, versions = len(self.calls), [tensor._version for tensor in received]
        self.calls.append(call)
        weight, result = self._weighed(gate._pipezoo_atom, args, kwargs)
        changed = any(tensor._version != version for tensor, version in zip(received, versions, strict=True))
        flat, shape = flatten(result)
        if not has_parameters(gate._pipezoo_atom):  # it may read less than it was given: a table of positions
            call = self._noted(name, [leaf for leaf in flat if isinstance(leaf, Tensor)])
        leaves = tuple(map(_leaf_of, flat))
        self.calls[index] = replace(call, leaves=leaves, shape=shape, weight=weight, changes_inputs=changed)
        return build(shape, [self._handed(Value(index, place), leaf) for place, leaf in enumerate(flat)])

    def finished(self, output: Any) -> tuple[Call, ...]:
        self.calls.append(self._noted("", list(tensors_in(output))))
        for value, tensor, version in self.handed:
            if tensor._version != version:
                call = self.calls[value.call]
                self.calls[value.call] = replace(call, changed=call.changed | {value.place})
        return tuple(self.calls)

    def _noted(self, name: str, received: Sequence[Tensor]) -> Call:
        found: set[Any] = set(self.whole)
        for tensor in received:
            if tensor.grad_fn is not None:
                found |= self._origins(tensor.grad_fn)
            elif id(tensor) in self.origin:
                found.add(self.origin[id(tensor)])
        return Call(
            name,
            reads=frozenset(origin for origin in found if isinstance(origin, Value)),
            inputs=frozenset(origin for origin in found if isinstance(origin, int)),
            parameters=frozenset(origin for origin in found if isinstance(origin, str)),
        )

    def _origins(self, node: Any) -> frozenset[Any]:
        stack = [node]
        while stack:
            top = stack[-1]
            if top in self.known:
                stack.pop()
                continue
            below = [follower for follower, _ in top.next_functions if follower is not None]
            missing = [follower for follower in below if follower not in self.known]
            if missing:
                stack += missing
                continue
            variable = getattr(top, "variable", None)
            own = {self.origin[id(variable)]} if id(variable) in self.origin else set()
            self.known[top] = frozenset(own).union(*(self.known[follower] for follower in below))
        return self.known[node]

    def _weighed(self, atom: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, Any]:
        if self.by == "flops" and has_parameters(atom):
            with torch.no_grad():
                alone = map_tensors(Tensor.detach, (args, kwargs))  # the counter is at odds with checkpoints in a graph
                return flops_of(lambda: atom(*alone[0], **alone[1]))
        if self.by == "time":
            copied = copies([atom])[0]  # a backward runs the hooks of parameters
            weight = seconds_of(copied, copied.parameters(), (args, kwargs), self.repeats)
            return weight, atom(*args, **kwargs)
        return num_parameters(atom), atom(*args, **kwargs)

    def _handed(self, value: Value, leaf: Any) -> Any:
        """An output as it goes on: floats as the beginning of a graph of their own."""
        if not isinstance(leaf, Tensor):
            return leaf
        if not _is_continuous(leaf):
            self.whole.append(value)
            return leaf
        handed = self._leaf(value, leaf)
        self.handed.append((value, handed, handed._version))
        return handed

    def _leaf(self, origin: Value | int, tensor: Tensor) -> Tensor:
        leaf = tensor.detach().requires_grad_()
        self.origin[id(leaf)] = origin
        self.alive.append(leaf)
        return leaf.clone(memory_format=torch.preserve_format)  # what follows may change it in place


PLAIN = (type(None), bool, int, float, complex, str, torch.dtype, torch.device, torch.Size)


def has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _leaf_of(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return Form(tuple(leaf.shape), tuple(leaf.stride()), leaf.dtype)
    return leaf if isinstance(leaf, PLAIN) else Opaque(type(leaf).__name__)


def _is_continuous(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _devices(example: Sequence[Tensor]) -> set[torch.device]:
    return {tensor.device for tensor in example if tensor.is_cuda}


@contextmanager
def _all_learn(model: nn.Module) -> Iterator[None]:
    """Have every floating parameter learn, so that the graph shows who reads it."""
    frozen = [p for p in model.parameters() if not p.requires_grad and _is_continuous(p)]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def without(record: Record, free: frozenset[str]) -> Record:
    """The record of the same forward, had the modules named ``free`` been no modules but code between the others."""
    place: dict[int, int] = {}
    kept: list[Call] = []
    spread: dict[int, Call] = {}
    for index, call in enumerate(record.calls):
        wide = _widened(call, spread)
        if call.name and call.name in free:
            spread[index] = wide
        else:
            place[index] = len(kept)
            kept.append(wide)
    renumbered = [
        replace(call, reads=frozenset(Value(place[read.call], read.place) for read in call.reads)) for call in kept
    ]
    return replace(record, calls=tuple(renumbered))


def _widened(call: Call, spread: Mapping[int, Call]) -> Call:
    """What a call reads, with what free calls read in the place of their outputs."""
    through = [spread[read.call] for read in call.reads if read.call in spread]
    return replace(
        call,
        reads=frozenset(read for read in call.reads if read.call not in spread).union(*(c.reads for c in through)),
        inputs=call.inputs.union(*(c.inputs for c in through)),
        parameters=call.parameters.union(*(c.parameters for c in through)),
    )
