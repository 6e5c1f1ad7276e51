"""Which of a model's modules every stage runs, by their names in the model.

stages    [embedding  blocks.0] [blocks.1] [norm  head]      a cut between modules: each is in one stage
          [embedding  blocks.0.attention] [blocks.0.up ...   a cut inside a module: names of modules do not say it
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pipezoo.splitters._chain import ModuleStage
from pipezoo.splitters._names import chain_of
from pipezoo.splitters._replay_stage import ReplayStage


def names_by_stage(model: nn.Module, stages: Sequence[nn.Module]) -> tuple[tuple[str, ...], ...]:
    """The names of the modules of every stage, in the model's order.

    Names are those of the model's children, ModuleLists and Sequentials opened. A traced stage holds the model's
    parameters and none of its modules, so there a module is where its parameters are.

    Raises:
        ValueError: names cannot say where this model is cut; in one line.
    """
    if all(isinstance(stage, ModuleStage) for stage in stages):
        return _by_identity(model, stages)
    if all(isinstance(stage, ReplayStage) for stage in stages):
        return _by_calls(model, stages)
    return _by_parameters(model, stages)


def stack_of(model: nn.Module) -> tuple[str, ...]:
    """The names of equal modules in a row: what the largest ModuleList or Sequential holds that holds nothing else."""
    best: tuple[int, tuple[str, ...]] = (0, ())
    for name, module in model.named_modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) and len(set(map(_shape, module))) == 1:
            size = sum(parameter.numel() for parameter in module.parameters())
            names = tuple(f"{name}.{inner}" if name else inner for inner, _ in module.named_children())
            best = max(best, (size, names), key=lambda found: found[0])
    return best[1]


def _shape(module: nn.Module) -> tuple[object, ...]:
    return type(module), *((name, tuple(parameter.shape)) for name, parameter in module.named_parameters())


def _by_identity(model: nn.Module, stages: Sequence[nn.Module]) -> tuple[tuple[str, ...], ...]:
    known = {id(module): name for name, module in reversed([*model.named_modules(remove_duplicate=False)])}
    return tuple(tuple(known[id(module)] for module in stage.chain) for stage in stages)  # type: ignore[union-attr,arg-type]


def _by_calls(model: nn.Module, stages: Sequence[nn.Module]) -> tuple[tuple[str, ...], ...]:
    """A replayed stage knows the modules that it runs."""
    names = [stage.names for stage in stages if isinstance(stage, ReplayStage)]
    for first, own in enumerate(names):
        for second in range(first + 1, len(names)):
            if shared := [name for name in own if name in names[second]]:
                raise ValueError(f"module {shared[0]} runs on stages {first} and {second}")
    _check_complete(model, names, stages)
    return tuple(names)


def _by_parameters(model: nn.Module, stages: Sequence[nn.Module]) -> tuple[tuple[str, ...], ...]:
    homes: dict[int, set[int]] = {}
    for stage, module in enumerate(stages):
        for parameter in module.parameters():
            homes.setdefault(id(parameter), set()).add(stage)
    names: list[list[str]] = [[] for _ in stages]
    for name in chain_of(model):
        for stage in _stage_of(name, [homes.get(id(p), set()) for p in model.get_submodule(name).parameters()]):
            names[stage].append(name)
    _check_complete(model, names, stages)
    return tuple(map(tuple, names))


def _stage_of(name: str, homes: Sequence[set[int]]) -> set[int]:
    """The one stage that holds all of a module's parameters; none for a module that forward does not use."""
    if not homes:
        raise ValueError(f"the cut is traced, and {name} has no parameters that would tell its stage")
    found = set().union(*homes)
    if len(found) > 1:
        first, second, *_ = sorted(found)
        raise ValueError(f"the cut goes through module {name}, which stages {first} and {second} share")
    return found


def _check_complete(model: nn.Module, names: Sequence[Sequence[str]], stages: Sequence[nn.Module]) -> None:
    """Every parameter of a stage belongs to one of its modules."""
    for own, stage in zip(names, stages, strict=True):
        covered = {id(parameter) for name in own for parameter in model.get_submodule(name).parameters()}
        for name, parameter in model.named_parameters():
            if id(parameter) not in covered and any(parameter is p for p in stage.parameters()):
                raise ValueError(f"parameter {name} belongs to none of the modules that a stage could name")
