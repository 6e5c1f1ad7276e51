"""Are the layers of a model cut in places where its stages still compute? Tried in one process, before any starts.

    copies of the stages, layers cut to the part of one process      every value that leaves a stage is whole, or not

Values in parts are followed from columns to rows. What draws for them would draw other numbers than one device. What is
whole and learns beside them would have the gradient of one part: of a parameter, the parts' gradients are added up; of
another value, nobody would add them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
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
from pipezoo.splitters._addresses import addresses
from pipezoo.splitters._copies import copies

ANOTHER = "valid: another plan in model.tp, or mesh.tp=1"
IN_PARTS = "in_parts"  # attribute of a value that is one


def try_cuts(cuts: Cuts, stages: Sequence[nn.Module], example: Tensors, drawing: Drawing | None) -> Cuts:
    """Run the stages with parts of their layers.

    Args:
        example: one microbatch.
        drawing: what is random in the model.

    Returns:
        The cuts, with the names of the parameters that work on parts.

    Raises:
        ConfigError: a forward fails, a stage hands on parts, something is drawn for parts, or learns beside them.
    """
    with leaving_no_trace(), torch.enable_grad():
        with torch.no_grad():
            whole = _shapes(copies(stages), example)
        twins, parts = copies(stages), _Parts(cuts.size, drawing.functions if drawing else frozenset())
        for stage in twins:
            parts.follow(stage, cuts.of_stage(stage))
        try:
            with parts:
                found = _shapes(twins, example)
        except ConfigError:
            raise
        except Exception as error:
            why = f"a forward with parts of the layers fails behind {parts.place}: {first_line(error)[:150]}"
            raise ConfigError(f"mesh.tp={cuts.size}: {why}; {ANOTHER}") from error
    for index, (expected, shapes) in enumerate(zip(whole, found, strict=True)):
        if expected != shapes:
            last = index == len(stages) - 1
            where = "the model's output is" if last else f"what stage {index} hands on is"
            raise ConfigError(
                f"mesh.tp={cuts.size}: {where} {shapes}, a part of {expected}, for its columns end in no rows; "
                f"valid: {'model.tp.gathered' if last else 'another cut into stages (split.at)'}, or mesh.tp=1"
            )
    return replace(cuts, on_parts=parts.parameters())


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
                module.register_parameter(name, nn.Parameter(ordered.chunk(size, dim)[0].clone()))
    if cut.kind == "gathered":
        module.register_forward_hook(lambda _, __, output: torch.cat([output] * size, -1))


class _Parts(TorchFunctionMode):
    """Marks what comes of a value in parts, until rows put it together."""

    def __init__(self, size: int, functions: frozenset[str]) -> None:
        super().__init__()
        self.place, self._size, self._functions = "its beginning", size, functions
        self._names: dict[int, str] = {}
        self._uses: dict[str, set[bool]] = {}

    def follow(self, stage: nn.Module, layers: Iterable[tuple[nn.Module, Cut]]) -> None:
        """Cut the layers of a stage, and look at what it does with all other parameters."""
        place = {id(module): address for address, module in addresses(stage)}
        for module, cut in layers:
            _cut(module, cut, self._size)
            self._watch(module, cut, place[id(module)])
        taken = {id(p) for module, _ in layers for p in module.parameters(recurse=False)}
        for address, module in addresses(stage):
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in taken:
                    self._names[id(parameter)] = f"{address}.{name}" if address else name

    def _watch(self, module: nn.Module, cut: Cut, address: str) -> None:
        def ended(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
            self.place = address
            value = output.view_as(output)
            setattr(value, IN_PARTS, cut.kind == "columns")
            return value

        module.register_forward_hook(ended)

    def parameters(self) -> frozenset[str]:
        """The whole parameters that work on parts."""
        for name, uses in self._uses.items():
            if len(uses) > 1:
                raise ConfigError(f"mesh.tp={self._size}: {name} works on parts and on whole values, too; {ANOTHER}")
        return frozenset(name for name, uses in self._uses.items() if uses == {True})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((*args, *kwargs.values())))
        in_parts = any(getattr(tensor, IN_PARTS, False) for tensor in given)
        for tensor in given:
            if id(tensor) in self._names:
                self._uses.setdefault(self._names[id(tensor)], set()).add(in_parts)
        if in_parts:
            self._check(name_of(func), given, kwargs)
        result = func(*args, **kwargs)
        if in_parts:
            for tensor in _tensors((result,)):
                setattr(tensor, IN_PARTS, True)
        return result

    def _check(self, function: str, given: Sequence[torch.Tensor], kwargs: Any) -> None:
        if function in self._functions and kwargs.get("dropout_p", True):
            raise ConfigError(
                f"mesh.tp={self._size}: {function} behind {self.place} draws for parts of the features, and one device "
                "for all of them: other numbers; valid: no dropout between columns and rows, or mesh.tp=1"
            )
        for tensor in given:
            if tensor.grad_fn is not None and not getattr(tensor, IN_PARTS, False):
                why = f"takes a whole value of {tuple(tensor.shape)} beside parts, whose gradient would be of one part"
                raise ConfigError(f"mesh.tp={self._size}: {function} behind {self.place} {why}; {ANOTHER}")


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)
