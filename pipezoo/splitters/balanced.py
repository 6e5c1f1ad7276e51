"""Cut so that the heaviest stage is as light as any cut allows: by parameters, by FLOPs, or by measured time.

    modules    embedding  blocks.0  blocks.1  blocks.2  blocks.3  norm  head
    time             1.0       4.0       4.0       4.0       4.0   0.5   9.0
    stages    [embedding  blocks.0  blocks.1][blocks.2  blocks.3][norm  head]        9, 8, 9.5

Cuts lie between the modules of a model that is a chain of them, else at the model's own ``pipe_split()`` calls. The
grouping is exact (``partition.py``). What the first and the last stage have besides (embedding, head) is weighed as
everything else is; the loss is not part of the model, and not weighed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipezoo.errors import ArgumentError
from pipezoo.skips import Skip, WithSkips, taken
from pipezoo.splitters._chain import check_covered, stages_of
from pipezoo.splitters._copies import copies
from pipezoo.splitters._names import chain_of
from pipezoo.splitters._partition import group_balanced
from pipezoo.splitters._trace_losses import with_losses
from pipezoo.splitters._tracing import join, trace
from pipezoo.splitters._weigh import check_measure, flops_of, num_parameters, seconds_of


def split(
    model: nn.Module, num_stages: int | None, example: tuple[Tensor, ...], by: str = "flops", repeats: int = 5
) -> list[nn.Module]:
    """Stage modules of ``model``, the heaviest of them as light as possible.

    Args:
        model: a chain of modules, or a model that calls ``pipe_split()``; it is not changed.
        num_stages: how many stages; None: 2.
        example: one microbatch of positional inputs.
        by: ``parameters`` (their number), ``flops`` (of a forward on the example, matrix products alone), or ``time``
            (median of a forward and a backward on the example, on this machine).
        repeats: how often ``time`` measures.

    Raises ValueError for an unknown measure, or where the model has too few places to cut.
    """
    check_measure(by, repeats)
    names = _chain_of(model, example)
    if names is not None:
        twin = copies([model])[0]
        pieces: list[nn.Module] = [twin.get_submodule(name) for name in names]
        groups = _groups(_weights(pieces, example, by, repeats), num_stages, "modules in a row")
        return stages_of(model, [[names[i] for i in group] for group in groups], example)
    traced = trace(model, example)
    pieces = join(traced, [range(i, i + 1) for i in range(len(traced.pieces))])
    weights = _weights(copies(pieces), example, by, repeats)
    made = join(traced, _groups(weights, num_stages, "pieces between its pipe_split() calls"))
    return with_losses(model, made, example)


def _chain_of(model: nn.Module, example: tuple[Tensor, ...]) -> list[str] | None:
    """Names of the modules that the model is a chain of; None where it is none."""
    names = chain_of(model)
    if not names:
        return None
    try:
        check_covered(model, names)
        stages_of(model, [[name] for name in names], example)
    except ValueError:
        return None
    return names


def _groups(weights: Sequence[float], num_stages: int | None, what: str) -> list[range]:
    wanted = min(2, len(weights)) if num_stages is None else num_stages
    if not 1 <= wanted <= len(weights):
        raise ArgumentError("num_stages", wanted, f"the model has {len(weights)} {what}", f"1..{len(weights)}")
    return group_balanced(weights, wanted)


def _weights(pieces: Sequence[nn.Module], example: tuple[Tensor, ...], by: str, repeats: int) -> list[float]:
    """Measures pieces that are copies: what a forward does to them, and to random numbers, is nobody's."""
    if by == "parameters":
        return [num_parameters(piece) for piece in pieces]
    weights = []
    value: Any = tuple(tensor.clone() for tensor in example)
    made: dict[Skip, Any] = {}
    with torch.random.fork_rng(devices={tensor.device for tensor in example if tensor.is_cuda}):
        for number, piece in enumerate(pieces):
            inputs = tuple(value) if isinstance(value, (tuple, list)) else (value,)
            skips = {name: made[skip] for name, skip in taken(piece).items()}
            if by == "time":
                weights.append(seconds_of(partial(_parted, piece), piece.parameters(), (inputs, skips), repeats))
            with torch.no_grad():
                flops, (value, left) = flops_of(partial(_parted, piece, *inputs, **skips))
            if by == "flops":
                weights.append(flops)
            made |= {Skip(number, name): each for name, each in left.items()}
    return weights


def _parted(piece: nn.Module, *inputs: Any, **skips: Any) -> tuple[Any, dict[str, Any]]:
    """What a piece returns, and its skips."""
    result = piece(*inputs, **skips)
    return (result.output, dict(result.skips)) if isinstance(result, WithSkips) else (result, {})
