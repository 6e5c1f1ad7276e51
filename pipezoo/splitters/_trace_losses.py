"""What a trace of a model is not: said, since a run that keeps more memory or rounds otherwise should not surprise.

    model      checkpoint(block, x)   block.compile()   a hook on a module   attention by one kernel
    trace      block, kept whole      block             nothing              by another

What is kept for the backward and what comes out are measured, on one microbatch; hooks and compiled blocks are looked
up. `split=replay` traces nothing and keeps them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from pipezoo.splitters._copies import copies
from pipezoo.splitters._dry_run import run, same_bits
from pipezoo.splitters._trees import tensors_in

MORE = 1.25  # times as many bytes that are kept for the backward are worth a line
MARK = "pipe_split"  # what a hook calls that marks a cut
KEPT = "split=replay drops nothing"


def with_losses(model: nn.Module, stages: list[nn.Module], example: tuple[Tensor, ...]) -> list[nn.Module]:
    """The stages of a trace; their ``lost_in_trace`` says in sentences what of the model they are not."""
    lost = tuple(_lost(model, stages, example))
    for stage in stages:
        stage.lost_in_trace = lost  # type: ignore[assignment]
    return stages


def _lost(model: nn.Module, stages: Sequence[nn.Module], example: tuple[Tensor, ...]) -> Iterable[str]:
    compiled = [name for name, module in model.named_modules() if _is_compiled(module)]
    if compiled:
        yield f"{_several(compiled)} is compiled, and is not in the trace; {KEPT}"
    hooked = [name for name, module in model.named_modules() if _has_hooks(module)]
    if hooked:
        yield f"hooks of {_several(hooked)} ran while it was traced, and do not run again; {KEPT}"
    parameters = list(model.parameters())
    with _not_compiling() if compiled else nullcontext():
        whole = copies([model], parameters)
        theirs, its_bytes, draws = _measured(whole, example)
    ours, our_bytes, _ = _measured(copies(stages, parameters), example)
    if our_bytes > MORE * its_bytes:
        kept = f"the trace keeps {our_bytes:,} bytes of a microbatch for the backward, the model itself {its_bytes:,}"
        yield f"{kept}: activation checkpointing is not in it; {KEPT}"
    if not draws and not same_bits(ours, theirs) and (far := _distance(ours, theirs)) is not None:
        yield f"the trace rounds otherwise than the model, by {far:.1g}: its kernels are others; {KEPT}"


def _measured(modules: Sequence[nn.Module], example: tuple[Tensor, ...]) -> tuple[Any, int, bool]:
    """What modules in a row return, the bytes that autograd keeps of them, and whether they drew random numbers."""
    resident = {t.untyped_storage().data_ptr() for m in modules for t in (*m.parameters(), *m.buffers())}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no place is used twice
    states: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in resident:
            kept[place] = max(kept.get(place, 0), tensor.untyped_storage().nbytes())
            alive.append(tensor.detach())
        return tensor

    def seen(*_: Any) -> None:
        states.append(torch.get_rng_state())

    watched = [modules[0].register_forward_pre_hook(seen), modules[-1].register_forward_hook(seen)]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = run(modules, example)
    finally:
        for handle in watched:
            handle.remove()
    detached = [tensor.detach() for tensor in tensors_in(result)]
    return detached, sum(kept.values()), not torch.equal(states[0], states[-1])


def _distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float | None:
    """The largest difference over the largest value; None where they are no floats of the same shapes."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=False) if a.shape == b.shape and b.is_floating_point()]
    largest = max((float(b.abs().max()) for _, b in pairs if b.numel()), default=0.0)
    return max(float((a - b).abs().max()) for a, b in pairs if b.numel()) / largest if largest else None


def _is_compiled(module: nn.Module) -> bool:
    return vars(module).get("_compiled_call_impl") is not None or type(module).__name__ == "OptimizedModule"


def _has_hooks(module: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooks = [hook for kind in kinds for hook in (vars(module).get(kind) or {}).values()]
    return any(MARK not in getattr(getattr(hook, "__code__", None), "co_names", ()) for hook in hooks)


def _not_compiling() -> AbstractContextManager[Any]:
    """Compiled blocks run as they are written: compiling them takes half a minute each."""
    stance: Callable[..., AbstractContextManager[Any]] = torch.compiler.set_stance
    return stance("force_eager")


def _several(names: Sequence[str]) -> str:
    first = names[0] or "the model"
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more modules"
