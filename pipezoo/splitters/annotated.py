"""Cut before or after modules that a `split_spec` names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.distributed.pipelining import SplitPoint, pipe_split

from pipezoo.errors import ArgumentError
from pipezoo.splitters._dry_run import twin_of
from pipezoo.splitters._names import find_module
from pipezoo.splitters._stage_modules import stack_of
from pipezoo.splitters._trace_losses import with_losses
from pipezoo.splitters._tracing import stages, trace

PLACES = {"beginning": SplitPoint.BEGINNING, "end": SplitPoint.END}


def split(
    model: nn.Module,
    num_stages: int | None,
    example: tuple[Tensor, ...],
    split_spec: Mapping[str, str | SplitPoint] | None = None,
) -> list[nn.Module]:
    """Stage modules of `model`, traced on `example` and cut where `split_spec` says.

    Args:
        model: any module that torch.export can trace; it is not changed, and its Parameters are those of the stages.
        num_stages: how many stages; fewer than the cuts make joins neighbours evenly. None: as many as the cuts make.
        example: one microbatch of positional inputs.
        split_spec: module name -> "beginning" (cut before the module runs) or "end" (after it). None: the model's
            attribute `split_spec`, with torch's SplitPoints as values.

    Raises ValueError when there is no split_spec, when it names no module or no place, makes too few stages, or
    the model cannot be traced.
    """
    name = type(model).__name__
    spec = split_spec if split_spec is not None else getattr(model, "split_spec", None)
    if spec is None:
        why = f"{name} has none of its own; give one{_like(model)}, or use split=replay, which needs none"
        raise ArgumentError("split_spec", None, why)
    twin = twin_of(model)
    for module_name, place in spec.items():
        _mark(twin, module_name, place)
    return with_losses(model, stages(trace(twin, example), num_stages, f"the split_spec of {name} makes"), example)


def _like(model: nn.Module) -> str:
    """A split_spec of this model: a cut in the middle of its longest row of equal modules."""
    stack = stack_of(model)
    return f", such as {{{stack[len(stack) // 2]}: beginning}}" if len(stack) > 1 else ""


def _mark(model: nn.Module, module_name: str, place: str | SplitPoint) -> None:
    """Have the named module call `pipe_split()` before or after each of its forwards."""
    module = find_module(model, module_name, "split_spec")
    point = PLACES.get(place.lower()) if isinstance(place, str) else place
    if point is SplitPoint.BEGINNING:
        module.register_forward_pre_hook(lambda *_: pipe_split())
    elif point is SplitPoint.END:
        module.register_forward_hook(lambda *_: pipe_split())
    else:
        raise ArgumentError("split_spec", module_name, f"{place!r}: unknown place", list(PLACES))
