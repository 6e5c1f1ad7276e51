"""From a model that marks its cuts to stage modules, by way of torch.export.

The trace is cut at every mark into pieces, and neighbouring pieces are joined to stages. What the next stage reads is
what a stage returns; what one further on reads is a skip, which goes straight there:

    x ----> piece 0 --h--> piece 1 --h--> piece 2 --> output
    y ----------------------------------/                         y is read by piece 2 alone

    stage 0 (x, y) -> h, skip y     stage 1 (h) -> h     stage 2 (h, y=skip of stage 0) -> output
"""

from __future__ import annotations

import importlib
import logging
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any, NamedTuple, cast

from torch import Tensor, fx, nn
from torch.distributed.pipelining import pipeline

from pipezoo.errors import ArgumentError, first_line
from pipezoo.skips import Skip, WithSkips
from pipezoo.splitters._addresses import first_names, of_trace
from pipezoo.splitters._dry_run import output_of, twin_of
from pipezoo.splitters._partition import group_evenly

FLAG = "RUN_WITH_INTERPRETER"


class Piece(NamedTuple):
    """What lies between two marks: `module` computes the values `outputs` from the values `inputs`.

    Values have names of their own, unique in the trace. A None among the outputs is a result that nobody reads.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str | None, ...]
    returns_tuple: bool


class Trace(NamedTuple):
    """A traced model: its pieces in order, the names of the values it takes and returns, and of its modules."""

    pieces: list[Piece]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    addresses: dict[str, str]


def trace(model: nn.Module, example: tuple[Tensor, ...]) -> Trace:
    """Trace `model` on one microbatch of positional inputs and cut the trace at its `pipe_split()` marks.

    The pieces hold the model's own Parameters and buffers. The model is left as it was: what its forward does to
    attributes, and hooks, touch a twin only.

    Raises ValueError with the cause in one line when the model does not run on the example or cannot be traced.
    """
    twin = twin_of(model)
    try:
        with _silence(), _as_code():
            pipe = pipeline(twin, example)
    except Exception as error:
        output_of(model, example)  # raises where the trouble is not the trace
        cause = first_line(error.__cause__ or error)
        name = type(model).__name__
        raise ArgumentError("model", name, f"cannot be traced: {cause}; split=replay cuts without a trace") from error
    result = _read(pipe.split_gm)._replace(addresses=first_names(twin))
    for piece in result.pieces:
        _reattach(piece.module, twin)
    return result


def stages(trace: Trace, num_stages: int | None, how: str) -> list[nn.Module]:
    """Join the pieces of `trace` to `num_stages` stages (None: one a piece), as evenly as possible.

    `how` says, in errors, what marks the model has. Raises ValueError when the marks do not make `num_stages`.
    """
    num_pieces = len(trace.pieces)
    if num_stages is None:
        num_stages = num_pieces
    if not 1 <= num_stages <= num_pieces:
        raise ArgumentError("num_stages", num_stages, f"{how} {num_pieces} stage(s)", f"1..{num_pieces}")
    return join(trace, group_evenly(num_pieces, num_stages))


def join(trace: Trace, grouping: Sequence[range]) -> list[nn.Module]:
    """A stage for each group of pieces; the groups are ranges of their numbers, one after the other."""
    groups = [trace.pieces[group.start : group.stop] for group in grouping]
    last = len(groups) - 1
    made = dict.fromkeys(trace.inputs, 0)
    made |= {name: at for at, group in enumerate(groups) for piece in group for name in piece.outputs if name}
    reads = [_live_before(group, trace.outputs if at == last else ()) for at, group in enumerate(groups)]
    stages: list[nn.Module] = []
    inputs, no_skips = trace.inputs, cast("tuple[str, ...]", ())
    for at, group in enumerate(groups):
        takes = {name: Skip(made[name], name) for name in reads[at] if name not in inputs}
        outputs, skips = (trace.outputs, no_skips) if at == last else _leaving(at, made, reads)
        outputs = outputs or inputs[:1]
        stages.append(TracedStage(group, inputs, outputs, trace.addresses, takes, skips, is_first=at == 0))
        inputs = outputs
    return stages


def _leaving(at: int, made: dict[str, int], reads: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of what stage ``at`` makes: the values that the next stage reads, and those that a stage further on does.

    Where the next stage reads nothing of it, it is given one value all the same, for a stage needs an input.
    """
    own = [name for name, stage in made.items() if stage == at]
    later = tuple(name for name in own if any(name in read for read in reads[at + 2 :]))
    following = tuple(name for name in reads[at + 1] if made[name] == at)
    return following or later[:1] or tuple(own[-1:]), later


class TracedStage(nn.Module):
    """One or more pieces of a trace, run in order.

    `forward` takes the values named `inputs` positionally, those of `takes` by keyword, and returns those named
    `outputs`: a tensor where there is one, else a tuple; with those named `skips` beside. An input passed on unread
    leaves as a copy: the stage before owns the original. One of the model leaves as it is.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        addresses: dict[str, str],
        takes: Mapping[str, Skip] | None = None,
        skips: tuple[str, ...] = (),
        is_first: bool = False,
    ) -> None:
        super().__init__()
        self._addresses, self.is_first = addresses, is_first
        self.takes, self.skips = takes or {}, skips
        self.pieces = nn.ModuleList(piece.module for piece in pieces)
        self.inputs = inputs
        self.outputs = outputs
        self._wiring = [(piece.inputs, piece.outputs, piece.returns_tuple) for piece in pieces]

    def addresses_in_model(self) -> Iterator[tuple[str, nn.Module]]:
        """The modules of the trace, each with the address of the model's module that it stands for."""
        for piece in self.pieces:
            for path, module in piece.named_modules():
                name = of_trace(path)
                yield self._addresses.get(name, name), module

    def forward(self, *args: Tensor, **taken: Tensor) -> Any:
        if len(args) != len(self.inputs):
            why = f"the stage takes {len(self.inputs)} ({', '.join(self.inputs)})"
            raise ArgumentError("args", f"{len(args)} tensor(s)", why)
        values: dict[str | None, Any] = dict(zip(self.inputs, args, strict=True))
        values.update(taken)
        for module, (inputs, outputs, returns_tuple) in zip(self.pieces, self._wiring, strict=True):
            result = module(*(values[name] for name in inputs))
            values.update(zip(outputs, result if returns_tuple else (result,), strict=False))
        copied = () if self.is_first else self.inputs
        left = {n: values[n].clone() if n in copied else values[n] for n in (*self.outputs, *self.skips)}
        results = tuple(left[name] for name in self.outputs)
        output = results[0] if len(results) == 1 else results
        return WithSkips(output, {name: left[name] for name in self.skips}) if self.skips else output


def _read(graph_module: fx.GraphModule) -> Trace:
    """The pieces and the flow of values of a graph that only takes inputs, calls pieces, and unpacks tuples."""
    graph = graph_module.graph
    inputs = tuple(node.name for node in graph.find_nodes(op="placeholder"))
    results = graph.output_node().args[0]
    outputs = []
    for node in results if isinstance(results, (tuple, list)) else (results,):
        if not isinstance(node, fx.Node):
            raise ValueError(f"model: its forward returns {node!r}; valid: one tensor or a tuple of tensors")
        outputs.append(node.name)
    pieces = []
    calls = graph.find_nodes(op="call_module")
    for node in sorted(calls, key=_number):  # the graph may list a piece that needs nothing before its predecessors
        parts = {user.args[1]: user.name for user in node.users if user.target is operator.getitem}
        size = 1 + max(parts, default=0)
        names = tuple(parts.get(i) for i in range(size)) if parts else (node.name,)
        module = graph_module.get_submodule(str(node.target))
        pieces.append(Piece(module, tuple(value.name for value in node.all_input_nodes), names, bool(parts)))
    return Trace(pieces, inputs, tuple(outputs), {})


def _number(node: fx.Node) -> int:
    """The place of a piece in the program, which torch writes at the end of its name: submod_pp_3."""
    return int(str(node.target).rpartition("_")[2])


def _live_before(pieces: Sequence[Piece], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The values that must be there before `pieces` run so that `wanted` are there afterwards, in a fixed order."""
    live = dict.fromkeys(wanted)
    for piece in reversed(pieces):
        live = {name: None for name in live if name not in piece.outputs} | dict.fromkeys(piece.inputs)
    return tuple(live)


def _reattach(piece: nn.Module, model: nn.Module) -> None:
    """Put the model's own tensors where the trace holds copies: a tensor used on both sides of a cut is copied.

    A module called more than once is numbered in the trace: `lin@1.weight` is the model's `lin.weight`.
    """
    originals = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    for path, module in list(piece.named_modules(remove_duplicate=False)):
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            qualified = of_trace(f"{path}.{name}" if path else name)
            original = originals.get(qualified)
            if original is not None:
                setattr(module, name, original)
            elif isinstance(tensor, nn.Parameter):
                raise ArgumentError("model", type(model).__name__, f"tracing lost the origin of parameter {qualified}")


@contextmanager
def _silence() -> Iterator[None]:
    """Swallow what torch.export logs, warns and prints: what matters of it is in the error it raises."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def _as_code() -> Iterator[None]:
    """Have the trace run as generated code: torch's interpreter adds about 400 us to every stage and microbatch."""
    unflatten = importlib.import_module("torch.export.unflatten")  # torch.export names a function like its file
    before = getattr(unflatten, FLAG)
    setattr(unflatten, FLAG, False)
    try:
        yield
    finally:
        setattr(unflatten, FLAG, before)
