"""One microbatch and one optimizer step, tried on copies before any process starts.

    copies     module 0 ──F──► module 1 ──F──► loss          the boundaries: shapes, dtypes, layouts of every message
                        ◄──B──          ◄──B──               or I, then W, where the schedule splits it
               optimizer.step() on copies of the parameters  with the gradients that came out

What some rank would have failed on is found here. Nothing is left of it, but a hook on a stage that changes what it
receives in place: parameters, buffers, random numbers and ``.grad`` are as
they were.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipezoo.errors import ArgumentError, first_line
from pipezoo.no_compiler import no_compiler
from pipezoo.runtime.autocast import Autocast
from pipezoo.runtime.autograd_engine import gradients_of, run_backward
from pipezoo.runtime.optimizing import Named, Optimized, Optimizing
from pipezoo.runtime.randomness import generators, generators_moved_since, leaving_no_trace
from pipezoo.runtime.stages import LossFunction
from pipezoo.runtime.try_forward import Ran, Value, try_forward
from pipezoo.runtime.try_loss import loss_of
from pipezoo.runtime.wiring import Wiring
from pipezoo.splitters._copies import copies
from pipezoo.supervisor.processes import unsafe_to_fork

Inspect = Callable[[int, nn.Module, nn.Module, list[torch.Tensor], list[torch.Tensor]], None]
RE_ENTRANT = "use_reentrant=True"


@dataclass(frozen=True)
class Trial:
    """What one microbatch showed.

    Args:
        wiring: that of :class:`~pipezoo.runtime.stages.Stages`.
        gradients: by the ``id`` of a parameter that learns, the gradient that its copy got.
        moved: the generators that stages and loss moved (:func:`~pipezoo.runtime.randomness.generators_moved_since`).
    """

    wiring: Wiring
    gradients: dict[int, torch.Tensor | None]
    moved: set[str]


def try_out(
    modules: Sequence[nn.Module],
    example: Sequence[Any],
    target: torch.Tensor,
    loss: LossFunction,
    split_backward: Collection[int] = (),
    inspect: Inspect | None = None,
    relay: bool = False,
    autocast: Autocast = Autocast(),  # noqa: B008 - frozen
    proved: bool = False,
) -> Trial:
    """Run one microbatch forwards and backwards through copies of the stages.

    Args:
        split_backward: the stages whose backward the schedule splits.
        inspect: looks at each of these before its backward, and raises ValueError for what the executor cannot split.
        relay: whether skips go through every stage in between.
        proved: whether another process has tried it all. Then it runs forwards alone, and copies no parameter.

    Raises:
        ValueError: a stage fails or returns what cannot cross, the loss does not fit, or a gradient is sparse.
    """
    copied = copies(modules, [p for module in modules for p in module.parameters()] if proved else ())
    with leaving_no_trace():
        before = generators()
        with autocast():
            ran, wiring = try_forward(modules, copied, example, relay)
            value = loss_of(ran[-1], target, loss)
        moved = generators_moved_since(before)
        if proved:
            return Trial(wiring, {}, moved)
        if inspect is not None:
            for index in sorted(split_backward):
                out = [tensor for _, tensor in ran[index].sent()] if index < len(modules) - 1 else ran[index].leaves
                ends, leaves = (
                    [tensor for tensor in side if tensor.requires_grad] for side in (out, ran[index].arrived)
                )
                inspect(index, modules[index], copied[index], ends, leaves)
        in_a_fork_beside_gpus(lambda: _backward(copied, ran, value, split_backward))
        _check_parameters(modules, copied)
    pairs = [
        (parameter, copy)
        for original, module in zip(modules, copied, strict=True)
        for parameter, copy in zip(original.parameters(), module.parameters(), strict=True)
    ]
    return Trial(wiring, {id(parameter): copy.grad for parameter, copy in pairs if copy.requires_grad}, moved)


def _check_parameters(modules: Sequence[nn.Module], copied: Sequence[nn.Module]) -> None:
    """Raises ValueError where a forward has made a parameter, or taken one away: no optimizer would know."""
    for index, (original, module) in enumerate(zip(modules, copied, strict=True)):
        before, after = ({name for name, _ in each.named_parameters()} for each in (original, module))
        for name in sorted(before ^ after):
            raise ValueError(
                f"stage {index}: its forward {'adds' if name in after else 'removes'} the parameter {name}; "
                "valid: parameters of the constructor"
            )


def try_optimizer(optimizing: Optimizing, held: Sequence[Named], trial: Trial, may_draw: bool = True) -> None:
    """Step the optimizer of each process, and the schedule of its learning rate, on copies with the trial's gradients.

    Args:
        held: by process, its parameters by name. One after the other, so that no whole model is copied.
        may_draw: random numbers, which nobody then compares.

    Raises:
        ArgumentError: one of its numbers is NaN or infinite.
        ValueError: it cannot step without a closure, or draws random numbers.
        Exception: whatever else its step raises.
    """
    for named in held:
        copied = {name: nn.Parameter(p.detach().clone()) for name, p in named.items() if p.requires_grad}
        for name, copy in copied.items():
            gradient = trial.gradients.get(id(named[name]))
            copy.grad = None if gradient is None else gradient.clone()
        if copied:
            _try_step(optimizing.of(copied), may_draw)


def _try_step(optimized: Optimized, may_draw: bool) -> None:
    optimized.pull()
    optimizer = optimized.optimizer
    for group in optimizer.param_groups:
        for name, value in group.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ArgumentError(name, value, "must be a finite number")
    with leaving_no_trace():
        before = generators()
        try:
            with no_compiler():
                optimizer.step()
        except TypeError as error:
            if "closure" not in str(error):
                raise
            name = type(optimizer).__name__
            raise ValueError(
                f"{name} asks for a closure that computes the loss anew; valid: one whose step() needs none"
            ) from error
        if not may_draw and generators_moved_since(before):
            raise ValueError(
                "its step draws random numbers, other ones on each rank; valid: one that draws none, or verify=false"
            )


def _backward(
    modules: Sequence[nn.Module], ran: Sequence[Ran], loss: torch.Tensor, split_backward: Collection[int]
) -> None:
    """Stage after stage, the last one first; each as the schedule has it."""
    returned: dict[Value, torch.Tensor] = {}
    ends, grads = [loss], [torch.ones_like(loss)]
    for index in reversed(range(len(modules))):
        if index < len(modules) - 1:
            pairs = [(out, returned[v]) for v, out in ran[index].sent() if v in returned and out.requires_grad]
            ends, grads = [out for out, _ in pairs], [grad for _, grad in pairs]
        leaves = [leaf for leaf in ran[index].arrived if leaf.requires_grad]
        try:
            if not ends:
                found: Sequence[torch.Tensor | None] = [None] * len(leaves)
            elif index in split_backward:
                found = _split(modules[index], ends, grads, leaves)
            else:
                run_backward(ends, grads)
                found = [leaf.grad for leaf in leaves]
        except Exception as error:
            raise ValueError(f"stage {index} fails in its backward: {_cause(error)}") from error
        arrived = [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, found, strict=True)]
        learning = [v for v, leaf in zip(ran[index].values, ran[index].arrived, strict=True) if leaf.requires_grad]
        returned = {v: grad for v, grad in returned.items() if v not in ran[index].values}
        returned |= dict(zip(learning, arrived, strict=True))
        for name, parameter in modules[index].named_parameters():
            if parameter.grad is not None and parameter.grad.layout != torch.strided:
                raise ValueError(f"stage {index}: the gradient of {name} is sparse; valid: sparse=False")


def in_a_fork_beside_gpus(work: Callable[[], None]) -> None:
    """Do ``work``, which raises ValueError.

    A backward starts the driver of every GPU. Where torch is built for GPUs it also starts autograd's threads, on
    machines without any too (seen on 2.14.1+cu130). No fork survives either.
    """
    if not built_for_gpus() or unsafe_to_fork():
        work()
        return
    reading, writing = os.pipe()
    if not (child := os.fork()):
        text = ""
        try:
            work()
        except BaseException as error:
            text = str(error) if type(error) is ValueError else first_line(error)
        os.write(writing, text.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    os.waitpid(child, 0)
    if text:
        raise ValueError(text)


def built_for_gpus() -> bool:
    """Whether this torch can drive GPUs, whether there are any or not."""
    return any(getattr(torch.version, name, None) for name in ("cuda", "hip", "xpu"))


def _split(
    module: nn.Module, ends: list[torch.Tensor], grads: list[torch.Tensor], leaves: list[torch.Tensor]
) -> Sequence[torch.Tensor | None]:
    """I, then W."""
    found: Sequence[torch.Tensor | None] = []
    if leaves:
        found = gradients_of(leaves, ends, grads, keeps_graph=True)
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if learning:
        run_backward(ends, grads, learning)
    return found


def _cause(error: Exception) -> str:
    if RE_ENTRANT in str(error):
        return (
            f"activation checkpointing with {RE_ENTRANT} cannot be split into input and weight gradients; "
            "valid: use_reentrant=False, or a schedule of full backwards (1f1b, interleaved_1f1b, gpipe)"
        )
    return first_line(error)
