"""Law 13: whatever splits, tries out, traces or measures a model leaves it, and the random numbers, as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.pipelining import pipe_split

from pipezoo.runtime.microbatching import scaled
from pipezoo.runtime.randomness import find_drawing
from pipezoo.runtime.try_out import try_out
from pipezoo.runtime.try_reference import try_reference
from pipezoo.splitters import annotated, balanced, marked, modules, replay
from pipezoo.splitters._dry_run import seed
from tests.splitters.test_exact import MODELS, build, example

WIDTH = 16


class Counting(nn.Module):
    """Counts its calls in Python and in a buffer, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(WIDTH, WIDTH)
        self.calls, self.seen = 0, []
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen.append(tuple(x.shape))
        self.count += 1
        return self.lin(x) + 0.01 * torch.randn_like(x)


class Hooks(nn.Linear):
    """Counts in the module what its hooks see, through functions that remember it."""

    def __init__(self) -> None:
        super().__init__(WIDTH, WIDTH)
        self.calls = [0, 0, 0]
        self.weight.register_hook(lambda grad: self.seen(0))
        self.weight.register_post_accumulate_grad_hook(lambda parameter: self.seen(1))
        self.register_forward_hook(lambda *_: self.seen(2))

    def seen(self, place: int) -> None:
        self.calls[place] += 1


class Normalised(nn.Module):
    """BatchNorm in every layer; with marks it can be traced as well."""

    def __init__(self, marks: bool = False) -> None:
        super().__init__()
        self.marks = marks
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU()) for _ in range(4)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for index, layer in enumerate(self.layers):
            if index and self.marks:
                pipe_split()
            x = layer(x)
        return x if not self.marks else x * 2  # no chain of its modules


SPLITS: dict[str, Callable[..., Any]] = {
    "annotated": annotated.split,
    "marked": marked.split,
    "modules": modules.split,
    "replay": replay.split,
    "replay by time": lambda *args: replay.split(*args, by="time", repeats=1),
    **{
        f"balanced by {by}": lambda *args, by=by: balanced.split(*args, by=by, repeats=1)
        for by in ("parameters", "flops", "time")
    },
}
BY_WHAT = ("replay", "balanced by parameters", "balanced by flops")
ODD: dict[str, Callable[[], nn.Module]] = {
    "batch norm": Normalised,
    "batch norm, marked": lambda: Normalised(marks=True),
    "hooks": lambda: nn.Sequential(Hooks(), Hooks(), Hooks()),
    "counting, drawing": lambda: nn.Sequential(Counting(), Counting(), Counting()),
}


def state(model: nn.Module) -> dict[str, Any]:
    """Everything that a forward could move: tensors, plain attributes of the modules, hooks, the generator."""
    tensors = {name: t.detach().clone() for name, t in (*model.named_parameters(), *model.named_buffers())}
    grads = {f"{name}.grad": p.grad for name, p in model.named_parameters()}
    plain = {
        f"{name}.{key}": repr(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (int, float, str, list, tuple, dict))
        and key not in ("_parameters", "_buffers", "_modules")
    }
    return {**tensors, **grads, **plain, "random": torch.get_rng_state()}


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b


def test_a_try_draws_what_its_seed_gives() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        given = torch.rand(4)
        seed(7)
        assert torch.equal(torch.rand(4), given)
        assert torch.initial_seed() == 7


# How a model is weighed is the same for all models, and "by time" runs it most: the others have what ODD has for them.
CASES = [(name, split) for name in (*MODELS, *ODD) for split in SPLITS if name in ODD or split not in BY_WHAT]


@pytest.mark.parametrize(("name", "split"), CASES)
def test_splitting_and_trying_out_changes_nothing(name: str, split: str) -> None:
    model = ODD[name]() if name in ODD else build(name, 2)
    inputs = (torch.randn(8, WIDTH),) if name in ODD else example(name)
    target = torch.zeros_like(inputs[0]) if name in ODD else torch.zeros_like(build(name, 2)(*inputs))
    before = state(model)
    try:
        stages = SPLITS[split](model.train(), 2, inputs)
        trial = try_out(stages, inputs, target, scaled(nn.MSELoss(), 1), split_backward=[1])
        try_reference(model, inputs, target, scaled(nn.MSELoss(), 1))
        find_drawing(model, stages, inputs, trial.moved)
    except ValueError:
        pass  # refused, which changes nothing either
    after = state(model)
    assert [key for key in before if not same(before[key], after[key])] == []
    assert before.keys() == after.keys()
