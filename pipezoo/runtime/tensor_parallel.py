"""Tensor parallelism: the layers of a stage, cut over the processes that share it, by torch's DTensor.

    model.tp            names by pattern      --cuts_of-->     Cuts: by address the cut of each layer, checked
    Cuts                in a process          --cut_stages--> its stages' layers hold parts; messages stay whole

Each process of a stage has a pipeline of its own, and sends and receives whole activations. A parameter that is cut is
a DTensor; all others are as they were, the same on every process of the stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import reduce
from typing import Any

import torch
from torch import nn

from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.experiment.tensor_plan import KEY, KINDS, TensorPlan
from pipezoo.splitters._addresses import addresses

LAYERS = (nn.Linear, nn.Embedding)


@dataclass(frozen=True)
class Cut:
    """How one layer is cut.

    Args:
        kind: ``columns``, ``rows`` or ``gathered``.
        is_embedding: whether it is an ``nn.Embedding``, and not an ``nn.Linear``.
        packed: how many layers it is.
    """

    kind: str
    is_embedding: bool = False
    packed: int = 1

    @property
    def dim(self) -> int:
        """The dimension of its weight that is cut."""
        return int(self.kind == "rows") ^ int(self.is_embedding)

    @property
    def cuts_bias(self) -> bool:
        return self.dim == 0


@dataclass(frozen=True)
class Cuts:
    """The cut of each layer that has one, by its address in the unsplit model, for ``size`` processes a stage.

    ``on_parts``: the names of parameters that are whole and work on parts, as a norm of heads does.
    """

    size: int
    layers: Mapping[str, Cut]
    on_parts: frozenset[str] = frozenset()

    def of_stage(self, stage: nn.Module) -> list[tuple[nn.Module, Cut]]:
        """The layers of a stage that are cut."""
        found = {id(module): (module, self.layers[at]) for at, module in addresses(stage) if at in self.layers}
        return list(found.values())

    def working_on_parts(self, stage: nn.Module) -> list[nn.Parameter]:
        """Those of :attr:`on_parts` that a stage holds."""
        own = [(f"{at}.{name}", p) for at, module in addresses(stage) for name, p in module.named_parameters("", False)]
        return [parameter for name, parameter in own if name.removeprefix(".") in self.on_parts]


def cuts_of(plan: TensorPlan, model: nn.Module, size: int) -> Cuts:
    """The layers that a plan names.

    Raises:
        ConfigError: a pattern that fits no layer, two that cut a layer in two ways, a number that ``size`` does not
            divide, a weight of which the plan leaves another name whole.
    """
    if not plan:
        raise ConfigError(
            f"mesh.tp={size}: the model says nothing of how its layers are cut; "
            f"valid: mesh.tp=1, or {KEY}.columns and {KEY}.rows, patterns of the names of its layers"
        )
    try:
        layers: dict[str, Cut] = {}
        modules: dict[str, nn.Module] = {}
        for kind in KINDS:
            for name, module in _named(kind, getattr(plan, kind), model).items():
                if name in layers:
                    raise ArgumentError(kind, name, f"is cut in {layers[name].kind} as well", "one of them")
                layers[name] = Cut(kind, isinstance(module, nn.Embedding), _packed(plan, name))
                modules[name] = module
        _check_heads(plan, model, size)
        for name, cut in layers.items():
            _check_layer(name, modules[name], cut, size)
        _check_packed(plan, layers)
        _check_tied(model, layers)
    except ArgumentError as error:
        raise ConfigError(error.inside("tp").at(KEY), error, error.why) from None
    return Cuts(size, layers)


def _named(kind: str, patterns: Iterable[str], model: nn.Module) -> dict[str, nn.Module]:
    """The layers by the first of their names."""
    first = {id(module): name for name, module in model.named_modules()}
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    found: dict[str, nn.Module] = {}
    for pattern in patterns:
        fits = [name for name in modules if fnmatchcase(name, pattern)]
        if not fits:
            raise _fits_nothing(kind, pattern, modules, type(model).__name__)
        for name in fits:
            if type(modules[name]) not in LAYERS:
                what = f"{name} is a {type(modules[name]).__name__}, and only a layer can be cut"
                raise ArgumentError(kind, pattern, what, "nn.Linear, nn.Embedding")
            found[first[id(modules[name])]] = modules[name]
    return found


def _fits_nothing(kind: str, pattern: str, modules: Mapping[str, nn.Module], model: str) -> ArgumentError:
    names = [name for name, module in modules.items() if isinstance(module, LAYERS)]
    shown = dict.fromkeys(".".join("*" if part.isdigit() else part for part in name.split(".")) for name in names)
    near = get_close_matches(pattern, shown, n=1, cutoff=0.5)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return ArgumentError(kind, pattern, f"fits no module of {model}{meant}", ", ".join(list(shown)[:8]) or "none")


def _packed(plan: TensorPlan, name: str) -> int:
    fits = [n for n, patterns in plan.packed.items() if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return fits[0] if fits else 1


def _check_packed(plan: TensorPlan, layers: Mapping[str, Cut]) -> None:
    for number, patterns in plan.packed.items():
        for pattern in patterns:
            fits = [cut for name, cut in layers.items() if fnmatchcase(name, pattern)]
            if not fits or any(cut.kind != "columns" for cut in fits):
                why = "fits no layer in columns" if not fits else "is not in columns, and so cut in any order"
                raise ArgumentError(f"packed.{number}", pattern, why, "patterns of columns")


def _check_layer(name: str, module: nn.Module, cut: Cut, size: int) -> None:
    if cut.is_embedding and cut.kind == "gathered":
        raise ArgumentError(cut.kind, name, "is an Embedding, whose output is whole in rows", "tp.rows")
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    length, parts = weight.shape[cut.dim], size * cut.packed
    if length % parts:
        times = f" times {cut.packed} packed layers" if cut.packed > 1 else ""
        why = f"its weight has {length} in the dimension that is cut, which mesh.tp={size}{times} does not divide"
        raise ArgumentError(cut.kind, name, why, f"mesh.tp={_divisors(length // cut.packed)}")


def _check_heads(plan: TensorPlan, model: nn.Module, size: int) -> None:
    for path in plan.heads:
        for name, number in _attributes(model, path):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ArgumentError("heads", path, f"{name} is {number!r}", "attributes that are numbers of heads")
            if number % size:
                why = f"{name} is {number}, which mesh.tp={size} does not divide"
                raise ArgumentError("heads", path, why, f"mesh.tp={_divisors(number)}")


def _attributes(model: nn.Module, path: str) -> list[tuple[str, Any]]:
    """The attributes that a path leads to: its last word in the modules that the rest fits, or in the model itself."""
    at, _, attribute = path.rpartition(".")
    fits = [(name, module) for name, module in model.named_modules() if name and fnmatchcase(name, at)]
    found = [(f"{name}.{attribute}", getattr(module, attribute)) for name, module in fits if hasattr(module, attribute)]
    if found:
        return found
    try:
        return [(path, reduce(getattr, path.split("."), model))]
    except AttributeError:
        raise ArgumentError("heads", path, f"{type(model).__name__} has no such attribute") from None


def _check_tied(model: nn.Module, layers: Mapping[str, Cut]) -> None:
    """All who hold a weight hold the same part of it."""
    first = {id(module): name for name, module in model.named_modules()}
    holders: dict[int, list[tuple[str, tuple[int, int] | None]]] = {}
    for name, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            cut = layers.get(first[id(module)])
            is_cut = cut is not None and (own == "weight" or cut.cuts_bias)
            how = (cut.dim if own == "weight" else 0, cut.packed) if cut and is_cut else None
            holders.setdefault(id(parameter), []).append((f"{name}.{own}", how))
    for held in holders.values():
        for name, how in held[1:]:
            if how != held[0][1]:
                one, other = (held[0][0], name) if how is None else (name, held[0][0])
                layer = one.rpartition(".")[0]
                why = f"{one} is {other} too, which is not cut so"
                raise ArgumentError(layers[layer].kind, layer, why, "both layers, or neither")


def _divisors(number: int) -> str:
    found = [str(n) for n in range(1, number + 1) if number % n == 0]
    return ", ".join(found[:6]) + (" ..." if len(found) > 6 else "")
