"""Are the layers of a model cut in places where its stages still compute? Tried in one process, before any starts.

copies of the stages, layers cut to the part of one process      every value that leaves a stage is whole, or not
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pipezoo.errors import ConfigError, first_line
from pipezoo.runtime.draws import Drawing, name_of
from pipezoo.runtime.randomness import leaving_no_trace
from pipezoo.runtime.stages import Tensors
from pipezoo.runtime.tensor_parallel import Cut, Cuts
from pipezoo.runtime.trees import flatten
from pipezoo.runtime.whole import reordered
from pipezoo.skips import run_stages
from pipezoo.splitters._copies import copies

WHOLE_HEADS = "valid: another plan in model.tp, or mesh.tp=1"


def try_cuts(cuts: Cuts, stages: Sequence[nn.Module], example: Tensors, drawing: Drawing | None) -> None:
    """Run the stages with parts of their layers.

    Args:
        example: one microbatch.
        drawing: what is random in the model.

    Raises:
        ConfigError: a forward fails, a stage hands on parts, or something is drawn for parts.
    """
    with leaving_no_trace(), torch.no_grad():
        whole = _shapes(copies(stages), example)
        twins, open_at = copies(stages), _Open(drawing.functions if drawing else frozenset())
        for stage in twins:
            for module, cut in cuts.of_stage(stage):
                open_at.watch(module, cut)
                _cut(module, cut, cuts.size)
        try:
            with open_at:
                parts = _shapes(twins, example)
        except ConfigError:
            raise
        except Exception as error:
            why = f"a forward with parts of the layers fails behind {open_at.place}: {first_line(error)[:150]}"
            raise ConfigError(f"mesh.tp={cuts.size}: {why}; {WHOLE_HEADS}") from error
    for index, (expected, found) in enumerate(zip(whole, parts, strict=True)):
        if expected != found:
            last = index == len(stages) - 1
            where = "the model's output is" if last else f"what stage {index} hands on is"
            raise ConfigError(
                f"mesh.tp={cuts.size}: {where} {found}, a part of {expected}, for its columns end in no rows; "
                f"valid: {'model.tp.gathered' if last else 'another cut into stages (split.at)'}, or mesh.tp=1"
            )


def _shapes(stages: Sequence[nn.Module], example: Tensors) -> list[list[tuple[int, ...]]]:
    """Of all tensors that leave each stage."""
    found: list[list[tuple[int, ...]]] = []

    def noting(stage: nn.Module) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = stage(*args, **kwargs)
            skips = getattr(result, "skips", {})
            leaves = flatten((getattr(result, "output", result) if skips else result, skips))[0]
            found.append([tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)])
            return result

        call.takes = getattr(stage, "takes", None)  # type: ignore[attr-defined]
        return call

    run_stages([*map(noting, stages)], example)
    return found


def _cut(module: nn.Module, cut: Cut, size: int) -> None:
    """Cut a layer as the first process has it. An embedding in rows looks up rows of others, and stays whole."""
    if not (cut.is_embedding and cut.kind == "rows"):
        for name, whole in [*module.named_parameters(recurse=False)]:
            if name == "weight" or cut.cuts_bias:
                dim = cut.dim if name == "weight" else 0
                ordered = reordered(whole.detach(), cut.packed, size) if cut.packed > 1 else whole.detach()
                module.register_parameter(name, nn.Parameter(ordered.chunk(size, dim)[0], requires_grad=False))
    if cut.kind == "gathered":
        module.register_forward_hook(lambda _, __, output: torch.cat([output] * size, -1))


class _Open(TorchFunctionMode):
    """Refuses to draw between columns and rows, where each process would draw for its part alone."""

    def __init__(self, functions: frozenset[str]) -> None:
        super().__init__()
        self.place, self._functions, self._is_open = "its beginning", functions, False

    def watch(self, module: nn.Module, cut: Cut) -> None:
        name = str(getattr(module, "address_in_model", type(module).__name__))

        def begins(*_: Any) -> None:
            if cut.kind == "rows":
                self._is_open = False

        def ended(*_: Any) -> None:
            self.place, self._is_open = name, cut.kind == "columns"

        module.register_forward_pre_hook(begins)
        module.register_forward_hook(ended)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._is_open and name_of(func) in self._functions and kwargs.get("dropout_p", True):
            raise ConfigError(
                f"mesh.tp: {name_of(func)} behind {self.place} draws for parts of the features, and one device for "
                "all of them: other numbers; valid: no dropout between columns and rows, or mesh.tp=1"
            )
        return func(*args, **kwargs)
