"""Law 15: what is random in a model is a function of seed, step, microbatch and module, never of who ran first."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.pipelining import pipe_split
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pipezoo.experiment.experiment import CheckpointOptions
from pipezoo.launch import Processes
from pipezoo.runtime.draws import DRAWING, NO_DRAWS, Drawing, Draws, StageDraws
from pipezoo.schedule.action import Op
from tests.support.experiments import WIDTH, ending, experiment, run

SCHEDULES = "pipezoo.schedules."
ZBV, ZB_H1 = f"{SCHEDULES}zbv.zbv", f"{SCHEDULES}zb_h1.zb_h1"
INTERLEAVED = f"{SCHEDULES}interleaved_1f1b.interleaved_1f1b"
TORCH = "pipezoo.executors.torch_pipelining.TorchPipelining"
REAL = {"launch": Processes(), "launch_name": "processes"}


class Functional(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(F.dropout(x, 0.3), 0.1, training=False) + F.dropout(x, 0.2)


class Sequences(nn.Module):
    """A module that takes ``[rows, 2, WIDTH]`` and returns it first."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = torch.stack([x, x + 1], 1)
        taken = (value,) * 3 if isinstance(self.inner, nn.MultiheadAttention) else (value,)
        output: torch.Tensor = self.inner(*taken)[0]
        return output.sum(1)


class DropPath(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.empty(len(x), 1).bernoulli_(0.6)


class LayerDrop(nn.Module):
    """Skips itself by chance, and so draws once or twice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if torch.rand(()) < 0.5 else x + torch.randn_like(x)


class Sampled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noise = torch.distributions.Gamma(2.0, 1.0).sample(x.shape)
        return x * noise + F.gumbel_softmax(x, dim=-1)


class Nested(nn.Module):
    """Draws itself before and after a module that draws."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(self.drop(F.dropout(x, 0.2)), 0.2)


class SeedsItself(nn.Module):
    """Noise that is always the same, of which nobody else sees anything; and one that goes on after it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(3)
            fixed = torch.rand(WIDTH)
        return x + fixed + torch.rand(WIDTH)


class Checkpointed(nn.Module):
    """Recomputes a module that it calls twice, and a function of its own that draws."""

    def __init__(self, use_reentrant: bool = False) -> None:
        super().__init__()
        self.drop, self.linear, self.use_reentrant = nn.Dropout(0.3), nn.Linear(WIDTH, WIDTH), use_reentrant

    def forward(self, x: torch.Tensor) -> Any:
        x = F.dropout(x, 0.1)
        for _ in range(2):
            x = checkpoint(self._block, x, use_reentrant=self.use_reentrant)
        return x

    def _block(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(torch.tanh(self.linear(self.drop(x))), 0.1) + self.drop(x)


SHARED = nn.Dropout(0.3)
KINDS: dict[str, Callable[[], nn.Module]] = {
    "Dropout": lambda: nn.Dropout(0.3),
    "Functional": Functional,
    "MultiheadAttention": lambda: Sequences(nn.MultiheadAttention(WIDTH, 2, dropout=0.2, batch_first=True)),
    "LSTM": lambda: Sequences(nn.LSTM(WIDTH, WIDTH, 2, dropout=0.2, batch_first=True)),
    "DropPath": DropPath,
    "LayerDrop": LayerDrop,
    "RReLU": nn.RReLU,
    "Sampled": Sampled,
    "Nested": Nested,
    "SeedsItself": SeedsItself,
    "one module at every place": lambda: SHARED,
    "checkpointed": Checkpointed,
}


class Tower(nn.Sequential):
    """Eight modules in a row, every other one of which draws."""

    def __init__(self, kind: str) -> None:
        super().__init__(*(make() for _ in range(4) for make in (lambda: nn.Linear(WIDTH, WIDTH), KINDS[kind])))


class Mixed(nn.Sequential):
    """One of each kind."""

    def __init__(self) -> None:
        super().__init__(*(make() for make in KINDS.values()), nn.Linear(WIDTH, WIDTH))


class ReEntrant(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(WIDTH, WIDTH), *(Checkpointed(use_reentrant=True) for _ in range(3)))


class Flat(nn.Module):
    """Draws in its own forward on both sides of its cuts, and in a module that it calls on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.drop = nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(F.dropout(self.linears[0](x), 0.2, self.training))
        pipe_split()
        x = self.drop(F.dropout(self.linears[1](x), 0.2, self.training))
        pipe_split()
        return F.dropout(self.linears[2](x), 0.2, self.training)


class NoisyLoss(nn.MSELoss):
    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return super().forward(output + torch.randn_like(output), target)


def losses(folder: Path, model: Any, **words: Any) -> list[float]:
    """Those of a run of two steps, which is verified bit for bit: they are one device's."""
    result = run(experiment(model, **{"steps": 2, "num_microbatches": 4, **words}), folder)
    assert result["verified"] == "exact"
    return list(result["losses"])


@pytest.mark.parametrize("kind", KINDS)
def test_any_cut_and_order_draws_what_one_device_draws(tmp_path: Path, kind: str) -> None:
    losses(tmp_path, (Tower, {"kind": kind}), num_stages=4, schedule=ZBV)


def test_two_cuts_draw_the_same(tmp_path: Path) -> None:
    two = losses(tmp_path / "two", Mixed, num_stages=2)
    assert losses(tmp_path / "four", Mixed, num_stages=4, schedule=ZBV) == two


@pytest.mark.parametrize(
    "words", [{}, {"schedule": ZB_H1}, {"executor": TORCH}], ids=["1f1b", "zb_h1", "executor=torch"]
)
def test_ranks_draw_what_one_device_draws(tmp_path: Path, words: dict[str, Any]) -> None:
    model = (Tower, {"kind": "Nested"})
    assert losses(tmp_path / "real", model, **REAL, **words) == losses(tmp_path / "virtual", model)


@pytest.mark.parametrize("num_stages", [2, 3])
def test_a_traced_cut_through_a_forward_that_draws(tmp_path: Path, num_stages: int) -> None:
    marked = {"split": "pipezoo.splitters.marked.split"}
    assert losses(tmp_path / "cut", Flat, num_stages=num_stages, **marked) == losses(
        tmp_path / "one", Flat, num_stages=1, **marked
    )


def test_what_a_loss_draws(tmp_path: Path) -> None:
    linear = (Tower, {"kind": "Dropout"})
    loss = {"loss": NoisyLoss}
    assert losses(tmp_path / "a", linear, **loss) == losses(
        tmp_path / "b", linear, num_stages=4, executor=TORCH, **loss
    )


def test_re_entrant_checkpointing_recomputes_what_its_forward_drew(tmp_path: Path) -> None:
    assert losses(tmp_path / "a", ReEntrant) == losses(tmp_path / "b", ReEntrant, num_stages=4)


def test_gpt_with_dropout_draws_the_same_where_it_is_tied_and_traced(tmp_path: Path) -> None:
    arguments = {"vocab_size": 256, "width": 8, "depth": 3, "heads": 2, "context": 8, "dropout": 0.2}
    text = {
        "data": ("pipezoo.data.text.batches", {"context": 8}),
        "loss": "pipezoo.losses.token_cross_entropy.TokenCrossEntropy",
    }
    model = ("pipezoo.models.gpt.GPT", arguments)
    found = [
        losses(tmp_path / str(number), model, **text, **words)
        for number, words in enumerate(
            (
                {"num_stages": 2},
                {"num_stages": 3, "schedule": ZB_H1, "split": "pipezoo.splitters.annotated.split"},
                {
                    "num_stages": 4,
                    "schedule": INTERLEAVED,
                    "split": ("pipezoo.splitters.balanced.split", {"by": "flops"}),
                },
            )
        )
    ]
    assert found[0] == found[1] == found[2]
    tied = ("pipezoo.models.gpt.GPT", {**arguments, "tied": True})
    result = run(experiment(tied, **text), tmp_path / "tied")
    assert (result["verified"], result["max_relative_difference"] < 1e-6) == ("close", True)


def test_a_resumed_run_draws_what_the_whole_one_draws(tmp_path: Path) -> None:
    model = (Tower, {"kind": "checkpointed"})
    whole = losses(tmp_path / "whole", model, steps=4, checkpoint=CheckpointOptions(every=2))
    resume = str(tmp_path / "whole" / "checkpoints" / "step-00000002")
    assert losses(tmp_path / "rest", model, steps=4, num_stages=4, schedule=ZBV, resume=resume) == whole[2:]


def test_steps_microbatches_and_layers_draw_different_numbers() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5), nn.Dropout(0.5))
    ones, draws = torch.ones(64), Draws(0, DRAWING)
    draws.follow(model.named_modules())
    masks = []
    for step in range(3):
        draws.step = step
        for microbatch in range(3):
            with draws.at(microbatch):
                masks += [tuple(layer(ones).tolist()) for layer in model]
    assert len(set(masks)) == 27
    other = Draws(1, DRAWING)
    with other.at(0):
        assert tuple(F.dropout(ones).tolist()) not in masks


def test_a_model_that_draws_nothing_is_not_touched(tmp_path: Path) -> None:
    from tests.runtime.test_try_out import Chain, built

    assert built(tmp_path, Chain).drawing is None


def test_microbatches_that_are_mixed_up_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    around = StageDraws.around
    monkeypatch.setattr(StageDraws, "around", lambda *args: around(*args[:-1], args[-1] ^ 1))
    code, line = ending(experiment((Tower, {"kind": "Dropout"})), tmp_path)
    assert code == 3
    assert line.startswith("the pipeline does not compute what one device computes: loss of step 0")


def test_a_stage_that_counts_from_zero_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = experiment((Tower, {"kind": "one module at every place"}))
    in_stages = Drawing.in_stages

    def forgetful(self: Drawing, *args: Any) -> StageDraws:
        return replace(in_stages(self, *args), before=(NO_DRAWS, NO_DRAWS))

    monkeypatch.setattr(Drawing, "in_stages", forgetful)
    assert ending(asked, tmp_path)[0] == 3


def test_a_recomputation_that_draws_anew_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    around = StageDraws.around
    monkeypatch.setattr(
        StageDraws, "around", lambda self, call, op, *place: around(self, call, op, *place) if op == Op.F else call
    )
    assert ending(experiment((Tower, {"kind": "checkpointed"})), tmp_path)[0] == 3


OWN = torch.Generator()


class Python(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * random.random()


class Numpy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, 0.1) * float(np.random.rand())


class Own(nn.Module):
    """Draws from a generator that is its attribute, and on request from torch's as well."""

    def __init__(self, generator: Any = None, p: float = 0.0) -> None:
        super().__init__()
        self.mine, self.p = generator or torch.Generator(), p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        drawn = torch.rand((), generator=self.mine) if isinstance(self.mine, torch.Generator) else self.mine.random()
        return F.dropout(x, self.p) * float(drawn)


class OwnOfItsFile(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rand(WIDTH, generator=OWN)


OUTSIDE: dict[str, Callable[[], nn.Module]] = {
    "python": Python,
    "numpy": Numpy,
    "own": Own,
    "own, and torch's": lambda: Own(p=0.1),
    "own of numpy": lambda: Own(np.random.default_rng()),
    "own of Python": lambda: Own(random.Random()),
    "own of its file": OwnOfItsFile,
}
WORDS = {
    "python": "its module 1 (Python) draws from Python's random",
    "numpy": "its module 1 (Numpy) draws from numpy.random",
    **dict.fromkeys([*OUTSIDE][2:6], "its module 1 (Own) draws from a generator of its own, mine"),
}


class Outside(nn.Sequential):
    def __init__(self, kind: str) -> None:
        super().__init__(nn.Linear(WIDTH, WIDTH), OUTSIDE[kind](), nn.Linear(WIDTH, WIDTH))


@pytest.mark.parametrize("kind", WORDS)
def test_what_cannot_be_counted_is_said_before_the_start(tmp_path: Path, kind: str) -> None:
    asked = experiment((Outside, {"kind": kind}))
    assert ending(asked, tmp_path / "verified") == (
        2,
        f"verify=true: model=Outside, split=split: {WORDS[kind]}, so one device draws other numbers; "
        "valid: functions of torch that draw without a generator=, or verify=false",
    )
    assert ending(replace(asked, verify=False), tmp_path / "let through")[0] == 0


def test_a_generator_that_nobody_can_copy_is_found_by_running_twice(tmp_path: Path) -> None:
    code, line = ending(experiment((Outside, {"kind": "own of its file"})), tmp_path)
    assert code == 2
    assert "another output each time it is called" in line
