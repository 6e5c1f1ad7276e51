"""Random numbers of a model: found by the generators that its forward moves, whatever its modules are called.

whole model, once           moves no generator, and gives what its stages gave: it draws nothing
whole model, by counter     against its stages, by counter: they draw the same numbers, bit for bit, or it is said why
"""

from __future__ import annotations

import pickle
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pipezoo.runtime.draws import DRAWING, LOSS, NO_DRAWS, Counts, Drawing, DrawingStage, Draws, name_of
from pipezoo.runtime.stages import Tensors
from pipezoo.skips import run_stages
from pipezoo.splitters._addresses import addresses
from pipezoo.splitters._copies import copies
from pipezoo.splitters._dry_run import same_bits, state_kept

TORCH, NUMPY, PYTHON = "torch", "numpy.random", "Python's random"


class UncountedError(ValueError):
    """Some draws of a model cannot be repeated elsewhere; the text names them."""


@contextmanager
def leaving_no_trace() -> Iterator[None]:
    """Leave generators and torch's modes as they were, and keep warnings for the run itself."""
    with state_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def find_drawing(
    model: nn.Module, stages: Sequence[nn.Module], example: Tensors, moved: set[str]
) -> tuple[Drawing | None, UncountedError | None]:
    """What is random in a model, if anything, and what of it cannot be the same on one device and in stages.

    Args:
        example: of one microbatch.
        moved: the generators that stages and loss moved, or whole model and loss (:func:`generators_moved_since`).
    """
    own = _drawing_from_their_own(model, example)
    if not moved:
        return None, own
    with leaving_no_trace(), torch.no_grad():
        modules, functions = _observe(model, example)
        modules = modules or [(LOSS, "")]
        error = _foreign(modules, moved) if moved != {TORCH} else own
        if TORCH not in moved:
            return None, error
        drawing, agrees = _counted(model, stages, example, Drawing(tuple(modules), functions | DRAWING, ()))
        if not agrees and error is None:
            error = UncountedError(f"{what(*modules[0])} draws other numbers in the stages that this split makes")
        return drawing, error


def _foreign(modules: Sequence[tuple[str, str]], moved: set[str]) -> UncountedError:
    name, kind = modules[0]
    return UncountedError(f"{what(name, kind)} draws from {' and '.join(sorted(moved - {TORCH}))}")


def _drawing_from_their_own(model: nn.Module, example: Tensors) -> UncountedError | None:
    """Modules with a generator among their attributes, which a forward moves."""
    if not _states(model):
        return None
    twin = copies([model])[0]
    with leaving_no_trace(), torch.no_grad():
        twin(*example)
    after = _states(twin)
    for (name, kind, attribute), state in _states(model).items():
        if after[name, kind, attribute] != state:
            return UncountedError(f"{what(name, kind)} draws from a generator of its own, {attribute}")
    return None


def _states(model: nn.Module) -> dict[tuple[str, str, str], str]:
    """The state of each generator that is an attribute of a module, by address, class and attribute."""
    found = {}
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if isinstance(value, torch.Generator):
                found[name, type(module).__name__, attribute] = str(value.get_state().tolist())
            elif isinstance(value, (np.random.Generator, np.random.RandomState, random.Random)):
                found[name, type(module).__name__, attribute] = str(pickle.dumps(value))
    return found


def what(name: str, kind: str) -> str:
    """A module in words."""
    if name == LOSS:
        return "the loss"
    return f"its module {name} ({kind})" if name else f"{kind}.forward"


def _counted(model: nn.Module, stages: Sequence[nn.Module], example: Tensors, drawing: Drawing) -> tuple[Drawing, bool]:
    """With the counts that each stage begins with; and whether the stages then draw what the whole model draws."""
    expected = _run_whole(model, example, drawing.functions)
    for adds_up in (True, False):  # a stage that runs the whole forward, others' modules left out, begins anew
        output, before = _run_stages(stages, example, drawing.functions, adds_up)
        if agrees := same_bits(expected, output):
            break
    return Drawing(drawing.modules, drawing.functions, before), agrees


def _run_whole(model: nn.Module, example: Tensors, functions: frozenset[str]) -> Any:
    twin, draws = copies([model])[0], Draws(0, functions)
    draws.follow(twin.named_modules())
    with draws.at(0):
        return twin(*example)


def _run_stages(
    stages: Sequence[nn.Module], example: Tensors, functions: frozenset[str], adds_up: bool
) -> tuple[Any, tuple[Counts, ...]]:
    """The output of a chain of copies, and the counts before each."""
    draws = Draws(0, functions)
    before: list[Counts] = []

    def drawing(stage: nn.Module) -> DrawingStage:
        def at() -> Draws:
            before.append(dict(draws.counts) if adds_up else NO_DRAWS)
            return draws.at(0, before[-1])

        draws.follow(addresses(stage))
        return DrawingStage(stage, at)

    return run_stages([*map(drawing, copies(stages))], example), tuple(before)


def _observe(model: nn.Module, example: Tensors) -> tuple[list[tuple[str, str]], frozenset[str]]:
    """The innermost modules whose forwards move a generator, and the functions of torch that do."""
    twin, observer = copies([model])[0], _Observer()
    found: dict[str, str] = {}
    running: list[tuple[tuple[object, ...], bool]] = []  # each with whether a module in it was found

    def watch(name: str, module: nn.Module) -> None:
        def began(*_: Any) -> None:
            running.append((generators(), False))

        def ended(*_: Any) -> None:
            before, inside = running.pop()
            if generators_moved_since(before):
                if not inside:
                    found.setdefault(name, type(module).__name__)
                running[-1:] = [(began, True) for began, _ in running[-1:]]

        module.register_forward_pre_hook(began)
        module.register_forward_hook(ended)

    for name, module in twin.named_modules():
        watch(name, module)
    with observer:
        twin(*example)
    return list(found.items()), frozenset(observer.found)


class _Observer(TorchFunctionMode):
    """Notes the functions that move torch's generator."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = torch.get_rng_state()
        result = func(*args, **(kwargs or {}))
        if not torch.equal(before, torch.get_rng_state()):
            self.found.add(name_of(func))
        return result


def generators() -> tuple[object, ...]:
    """The states of the generators that a forward may move: of torch, of numpy, and of Python."""
    kind, keys, place, *_ = np.random.get_state()
    return torch.get_rng_state(), (kind, bytes(np.asarray(keys)), place), random.getstate()


def generators_moved_since(before: tuple[object, ...]) -> set[str]:
    """The names of those that are elsewhere than :func:`generators` said."""
    torchs, numpys, pythons = generators()
    assert isinstance(torchs, torch.Tensor)
    assert isinstance(before[0], torch.Tensor)
    same = {TORCH: torch.equal(torchs, before[0]), NUMPY: numpys == before[1], PYTHON: pythons == before[2]}
    return {name for name, is_same in same.items() if not is_same}
