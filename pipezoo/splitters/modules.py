"""Cut between modules, listed by name per stage as trainers write them; nothing is traced.

A model that is a chain of modules, each fed with what the one before returns, is cut between any two of them:

    children   embedding   blocks.0  blocks.1   blocks.2   norm  head       (ModuleLists and Sequentials opened)
    stages    [embedding,  blocks.0][blocks.1,  blocks.2] [norm, head]

That the model is such a chain is not taken on trust: the stages, run one after the other on the example, have to
give the model's own output bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from pipezoo.dry_run import first_line, output_of, run, twin_of
from pipezoo.module_names import chain_of, find_module, opened_names
from pipezoo.partition import group_evenly


def split(
    model: nn.Module,
    num_stages: int | None,
    example: tuple[Tensor, ...],
    modules: Sequence[Sequence[str]] | None = None,
) -> list[nn.Module]:
    """Stage modules of `model`, each a chain of its modules.

    Args:
        model: a chain of modules; it is not changed, and its modules are those of the stages.
        num_stages: how many stages; fewer than `modules` lists joins neighbours evenly. None: as many as `modules`
            lists, else 2.
        example: one microbatch of positional inputs. The first module takes all of them if that is what reproduces
            the model's output, else the first one alone; the stage takes them all either way.
        modules: names of modules per stage. None: the children of the model, dealt evenly.

    Raises ValueError when a name is unknown, there are too few modules, a parameter belongs to none of them, or the
    model is not their chain; the text says which splitter fits.
    """
    units = _units(model, modules)
    _check_covered(model, list(chain(*units)))
    what = "the model has {} module(s) in a row" if modules is None else "modules lists {} stage(s)"
    if num_stages is None:
        num_stages = len(units) if modules is not None else min(2, len(units))
    if not 1 <= num_stages <= len(units):
        raise ValueError(f"num_stages={num_stages}: {what.format(len(units))}; valid: 1..{len(units)}")
    grouped = [list(chain(*(units[i] for i in group))) for group in group_evenly(len(units), num_stages)]
    takes = _inputs_that_reproduce(model, grouped, example)
    return _chain(model, grouped, takes)


class ModuleStage(nn.Module):
    """Modules in a row: the first takes the first `num_inputs` inputs (None: all), each other one what came before."""

    def __init__(self, modules: Sequence[nn.Module], num_inputs: int | None = None) -> None:
        super().__init__()
        self.chain = nn.ModuleList(modules)
        self.num_inputs = num_inputs

    def forward(self, *inputs: Tensor) -> Any:
        value: Any = inputs[: self.num_inputs]
        for module in self.chain:
            value = module(*value) if isinstance(value, tuple) else module(value)
        return value


class ModuleStageWithDw(ModuleStage):
    """A stage whose modules can put off their weight gradients: it offers their `toggle()` and `compute_dW()`."""

    def toggle(self) -> None:
        """Switch every module that has parameters between its two backwards."""
        for module in _with_parameters(self.chain):
            module.toggle()

    def compute_dW(self) -> None:
        """Have every module that has parameters complete its oldest backward, the last module first."""
        for module in reversed(_with_parameters(self.chain)):
            module.compute_dW()


def _units(model: nn.Module, modules: Sequence[Sequence[str]] | None) -> list[list[str]]:
    """Names of modules that stay together, containers opened: one child each, or one list of the user's each."""
    if modules is None:
        return [[name] for name in chain_of(model)]
    units = []
    for stage, names in enumerate(modules):
        if isinstance(names, str) or not names:
            raise ValueError(f"modules[{stage}]={names!r}: must be a list of module names")
        for name in names:
            find_module(model, name, f"modules[{stage}]")
        units.append([opened for name in names for opened in opened_names(model, name)])
    return units


def _chain(model: nn.Module, grouped: Sequence[Sequence[str]], takes: int | None) -> list[nn.Module]:
    stages: list[nn.Module] = []
    for names in grouped:
        members = [model.get_submodule(name) for name in names]
        num_inputs = None if stages else takes
        has_dw = all(hasattr(m, "toggle") and hasattr(m, "compute_dW") for m in _with_parameters(members))
        offers_dw = has_dw and bool(_with_parameters(members))
        stages.append((ModuleStageWithDw if offers_dw else ModuleStage)(members, num_inputs))
    return stages


def _with_parameters(modules: Sequence[nn.Module] | nn.ModuleList) -> list[Any]:
    return [module for module in modules if next(module.parameters(), None) is not None]


def _check_covered(model: nn.Module, names: Sequence[str]) -> None:
    covered = {id(tensor) for name in names for tensor in model.get_submodule(name).parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) not in covered:
            where = "no module" if "." not in name else "none of the modules listed"
            raise ValueError(f"model={type(model).__name__}: parameter {name} belongs to {where}; {_other(model)}")


def _inputs_that_reproduce(
    model: nn.Module, grouped: Sequence[Sequence[str]], example: tuple[Tensor, ...]
) -> int | None:
    """How many inputs the first module takes (None: all) for the chain to give the model's output bit for bit.

    Raises ValueError when the model fails on the example, and when neither all nor one of them do.
    """
    expected = output_of(model, example)
    reason = "one after the other they give another output"
    for takes in [None, 1] if len(example) > 1 else [None]:
        try:
            if _identical(expected, run(_chain(twin_of(model, share_buffers=False), grouped, takes), example)):
                return takes
        except Exception as error:
            reason = f"one after the other they fail: {first_line(error)}"
    raise ValueError(f"model={type(model).__name__}: not the chain of its modules, {reason}; {_other(model)}")


def _identical(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(_identical(x, y) for x, y in zip(a, b, strict=True))
    return False


def _other(model: nn.Module) -> str:
    return (
        "split=annotated fits"
        if getattr(model, "split_spec", None)
        else "split=marked fits a model that calls pipe_split()"
    )
