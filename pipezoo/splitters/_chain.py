"""Stages that are modules of a model in a row, and the proof that the model is nothing but their chain.

    children   embedding   blocks.0  blocks.1   blocks.2   norm  head       (ModuleLists and Sequentials opened)
    stages    [embedding,  blocks.0][blocks.1,  blocks.2] [norm, head]

That a model is such a chain is not taken on trust: the stages, run one after the other on an example, have to give the
model's own output bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from torch import Tensor, nn

from pipezoo.errors import ArgumentError, first_line
from pipezoo.skips import arguments
from pipezoo.splitters._copies import copies
from pipezoo.splitters._dry_run import CHANGES_ITS_MIND, output_of, run, same_bits


def stages_of(model: nn.Module, grouped: Sequence[Sequence[str]], example: tuple[Tensor, ...]) -> list[nn.Module]:
    """A stage for each group of names of modules; the modules are the model's own.

    Raises ValueError when a parameter belongs to none of them, or the model is not their chain.
    """
    check_covered(model, list(chain(*grouped)))
    return _chain(model, grouped, _inputs_that_reproduce(model, grouped, example))


class ModuleStage(nn.Module):
    """Modules in a row: the first takes the first `num_inputs` inputs (None: all), each other one what came before."""

    def __init__(self, modules: Sequence[nn.Module], num_inputs: int | None = None) -> None:
        super().__init__()
        self.chain = nn.ModuleList(modules)
        self.num_inputs = num_inputs

    def forward(self, *inputs: Tensor) -> Any:
        value: Any = inputs[: self.num_inputs]
        for module in self.chain:
            value = module(*arguments(value))
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


def check_covered(model: nn.Module, names: Sequence[str]) -> None:
    """Raises ValueError when a parameter of the model belongs to none of the modules named."""
    covered = {id(tensor) for name in names for tensor in model.get_submodule(name).parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) not in covered:
            where = "no module" if "." not in name else "none of the modules listed"
            raise ArgumentError("model", type(model).__name__, f"parameter {name} belongs to {where}; {_other(model)}")


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
            if same_bits(expected, run(_chain(copies([model])[0], grouped, takes), example)):
                return takes
        except Exception as error:
            reason = f"one after the other they fail: {first_line(error)}"
    if not same_bits(expected, output_of(model, example)):
        raise ArgumentError("model", type(model).__name__, CHANGES_ITS_MIND)
    raise ArgumentError("model", type(model).__name__, f"not the chain of its modules, {reason}; {_other(model)}")


def _other(model: nn.Module) -> str:
    return (
        "split=annotated fits"
        if getattr(model, "split_spec", None)
        else "split=replay fits, or split=marked where it calls pipe_split()"
    )
