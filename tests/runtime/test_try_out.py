"""What some rank would fail on is found before any process starts, in one line; and what is right is let through."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from pipezoo.data.batch import Batch
from pipezoo.data.regression import batches
from pipezoo.errors import ConfigError
from pipezoo.launch import Processes
from pipezoo.runtime import try_out
from pipezoo.runtime.build import build_pipeline
from pipezoo.runtime.pipeline import Pipeline
from tests.support.experiments import WIDTH, ending, experiment

SPLIT = "pipezoo.schedules.zb_h1.zb_h1"
REPLAY = "pipezoo.splitters.replay.split"


class Chain(nn.Sequential):
    """Two linear layers and, between them, ``middle()``."""

    def __init__(self, middle: Callable[[], nn.Module] = nn.Identity) -> None:
        super().__init__(nn.Linear(WIDTH, WIDTH), middle(), nn.Linear(WIDTH, WIDTH))


class InPlace(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.exp()
        y += 1  # what exp kept for its backward
        return y


class InPlaceBug(Chain):
    def __init__(self) -> None:
        super().__init__(InPlace)


class Recomputed(nn.Module):
    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.inner, self.use_reentrant = nn.Linear(WIDTH, WIDTH), use_reentrant

    def forward(self, x: torch.Tensor) -> Any:
        return checkpoint(self.inner, x, use_reentrant=self.use_reentrant)


class ReEntrant(Chain):
    def __init__(self, use_reentrant: bool = True) -> None:
        super().__init__(lambda: Recomputed(use_reentrant))


class Lookup(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, WIDTH, sparse=True)

    def forward(self, x: torch.Tensor) -> Any:
        return x + self.table((x[:, 0] > 0).long())


class Sparse(Chain):
    def __init__(self) -> None:
        super().__init__(Lookup)


class Lazy(Chain):
    def __init__(self) -> None:
        super().__init__(lambda: nn.LazyLinear(WIDTH))


class FunctionalDropout(nn.Module):
    def __init__(self, p: float = 0.3) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, self.p, self.training)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, 2, dropout=0.1, batch_first=True)

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(x[:, None], x[:, None], x[:, None], need_weights=False)[0][:, 0]


class DropPath(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.empty(len(x), 1).bernoulli_(0.9)


class Noise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1e-9 * torch.randn_like(x)


class SwitchedOff(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def train(self, mode: bool = True) -> SwitchedOff:
        super().train(mode)
        self.drop.eval()
        return self


class SwitchedOffUsed(SwitchedOff):
    def forward(self, x: torch.Tensor) -> Any:
        return self.drop(x)


class Random(Chain):
    def __init__(self, kind: str) -> None:
        super().__init__(RANDOM[kind])


RANDOM: dict[str, Callable[[], nn.Module]] = {
    "Dropout": lambda: nn.Dropout(0.3),
    "FunctionalDropout": FunctionalDropout,
    "MultiheadAttention": Attention,
    "DropPath": DropPath,
    "Noise": Noise,
    "RReLU": nn.RReLU,
}
QUIET: dict[str, Callable[[], nn.Module]] = {
    "p=0": lambda: nn.Dropout(0.0),
    "eval": SwitchedOffUsed,
    "F.dropout(p=0)": lambda: FunctionalDropout(0.0),
}


class Quiet(Chain):
    def __init__(self, kind: str) -> None:
        super().__init__(QUIET[kind])


class Column(Chain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).sum(dim=1)


class OwnLoss(Chain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).square().mean()


class ComplexLoss(nn.Module):
    reduction = "mean"

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.complex(output, target).mean()


class Differentiable(torch.optim.SGD):
    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr, differentiable=True)


def without_target(batch_size: int, seed: int, d_hid: int) -> Callable[[int], Batch]:
    inner = batches(batch_size, seed, d_hid)
    return lambda step: Batch(inner(step).args, {}, 3)  # type: ignore[arg-type]


def built(tmp_path: Path, model: Any, model_arguments: dict[str, Any] | None = None, **changes: Any) -> Pipeline:
    asked = experiment(model, **changes) if not model_arguments else experiment((model, model_arguments), **changes)
    return build_pipeline(asked, tmp_path)[0]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "in place": ({"model": InPlaceBug}, "modified by an inplace operation"),
    "in place, split": ({"model": InPlaceBug, "schedule": SPLIT}, "modified by an inplace operation"),
    "re-entrant, split": ({"model": ReEntrant, "schedule": SPLIT}, "valid: use_reentrant=False, or a schedule of full"),
    "sparse": ({"model": Sparse}, "stage 0: the gradient of chain.1.table.weight is sparse"),
    "lazy": ({"model": Lazy}, "1.weight has no shape before the first forward"),
    "complex loss": ({"model": Chain, "loss": ComplexLoss}, "the loss is a complex number"),
    "broadcast": (
        {"model": Column, "split": REPLAY},
        "the loss fails on output (4,), target (4, 8): UserWarning: Using a target",
    ),
    "its own loss": (
        {"model": OwnLoss, "split": REPLAY},
        "the model returns one number, as one does that computes its loss; valid: loss=model",
    ),
    "lbfgs": ({"model": Chain, "optimizer": "torch.optim.LBFGS"}, "optimizer=LBFGS: LBFGS asks for a closure"),
    "differentiable": ({"model": Chain, "optimizer": Differentiable}, "optimizer=Differentiable: RuntimeError"),
    "target": ({"model": Chain, "data": (without_target, {"d_hid": WIDTH})}, "the target is int"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_before_a_process_starts(tmp_path: Path, what: str) -> None:
    words, text = REFUSED[what]
    with pytest.raises(ConfigError) as found:
        built(tmp_path, **words, verify=False, steps=1)
    assert text in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "words",
    [
        {"model": ReEntrant},
        {"model": ReEntrant, "model_arguments": {"use_reentrant": False}, "schedule": SPLIT},
        {"model": Chain, "optimizer": "torch.optim.Adafactor"},
    ],
    ids=["re-entrant, full backwards", "not re-entrant, split", "adafactor"],
)
def test_let_through(tmp_path: Path, words: dict[str, Any]) -> None:
    built(tmp_path, **words)


@pytest.mark.parametrize(("key", "value"), [("lr", math.inf), ("lr", math.nan), ("momentum", math.inf)])
def test_numbers_of_an_optimizer_are_finite(tmp_path: Path, key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"optimizer.{key}={value}: must be a finite number"):
        built(tmp_path, Chain, optimizer=("torch.optim.SGD", {"lr": 0.1, key: value}))


@pytest.mark.parametrize("kind", RANDOM)
def test_randomness_is_found_by_what_it_does_and_named(tmp_path: Path, kind: str) -> None:
    drawing = built(tmp_path, Random, {"kind": kind}).drawing
    assert drawing is not None
    assert drawing.modules == (("1.inner" if kind == "MultiheadAttention" else "1", kind),)


@pytest.mark.parametrize("kind", QUIET)
def test_dropout_that_is_off_is_no_randomness(tmp_path: Path, kind: str) -> None:
    assert built(tmp_path, Quiet, {"kind": kind}).drawing is None


def test_the_optimizer_is_tried_on_copies(tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = Chain()
    pipeline = built(tmp_path, Chain, optimizer=("torch.optim.SGD", {"lr": 1e3}))
    for ours, theirs in zip(pipeline.stages.model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.grad is None


class InPlaceFirst(nn.Sequential):
    """With a module a stage, stage 1 begins with a change in place of what it receives."""

    def __init__(self) -> None:
        linear, relu = partial(nn.Linear, WIDTH, WIDTH), partial(nn.ReLU, inplace=True)
        super().__init__(linear(), relu(), linear())


@pytest.mark.parametrize("schedule", ["pipezoo.schedules.one_f_one_b.one_f_one_b", SPLIT])
def test_a_stage_may_change_what_it_receives_in_place(tmp_path: Path, schedule: str) -> None:
    asked = experiment(InPlaceFirst, schedule=schedule, num_stages=3)
    assert ending(asked, tmp_path / "virtual") == (0, "exact")
    assert ending(replace(asked, launch=Processes(), launch_name="processes"), tmp_path / "real") == (0, "exact")


def test_a_torch_that_is_built_for_gpus_runs_its_backward_in_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")  # on a machine without a GPU, as PyPI's wheels for Linux
    where: list[int] = []
    try_out.in_a_fork_beside_gpus(lambda: where.append(os.getpid()))
    assert where == []  # what the fork noted stayed there
    monkeypatch.setattr(torch.version, "cuda", None)
    try_out.in_a_fork_beside_gpus(lambda: where.append(os.getpid()))
    assert where == [os.getpid()]
