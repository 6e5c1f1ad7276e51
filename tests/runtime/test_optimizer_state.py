"""A resumed run is the run that was never interrupted, whatever its optimizer keeps; or it is refused."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipezoo.errors import ConfigError
from pipezoo.experiment.experiment import CheckpointOptions
from pipezoo.runtime.build import build_pipeline
from pipezoo.runtime.optimizer_state import CannotRestoreError, began, capture, names_of, restore, same
from pipezoo.runtime.read_checkpoint import read
from tests.runtime.test_read_checkpoint import sign
from tests.support.experiments import WIDTH, experiment, run

Parameters = Iterable[nn.Parameter]


class Warm(torch.optim.AdamW):
    """torch's own scheduler within."""

    def __init__(self, params: Parameters, lr: float = 1e-2, warmup: int = 6) -> None:
        super().__init__(params, lr=lr)
        self.plan = torch.optim.lr_scheduler.LambdaLR(self, lambda step: min(1.0, (step + 1) / warmup))

    def step(self, closure: Any = None) -> Any:
        result = super().step(closure)
        if hasattr(self, "plan"):
            self.plan.step()
        return result


class CountsInGroups(torch.optim.AdamW):
    def __init__(self, params: Parameters, lr: float = 1e-2, total: int = 20) -> None:
        super().__init__(params, lr=lr)
        self.peak, self.total = lr, total
        for group in self.param_groups:
            group["updates"] = 0

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["updates"] += 1
            group["lr"] = self.peak * (1 - group["updates"] / self.total)
        return super().step(closure)


class CountsItself(torch.optim.SGD):
    def __init__(self, params: Parameters, lr: float = 1e-2) -> None:
        super().__init__(params, lr=lr)
        self.count = 0

    def step(self, closure: Any = None) -> Any:
        self.count += 1
        for group in self.param_groups:
            group["lr"] = 0.01 / self.count
        return super().step(closure)


class Masters(torch.optim.Optimizer):
    """Parameters of higher precision, moved by an optimizer within."""

    def __init__(self, params: Parameters, lr: float = 1e-2) -> None:
        super().__init__(list(params), {"lr": lr})
        self.masters = [p.detach().double().requires_grad_() for p in self.param_groups[0]["params"]]
        self.inner = torch.optim.AdamW(self.masters, lr=lr)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        own = self.param_groups[0]["params"]
        for parameter, master in zip(own, self.masters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.double()
        self.inner.step()
        for parameter, master in zip(own, self.masters, strict=True):
            parameter.copy_(master)


class Groups(torch.optim.AdamW):
    """No weight decay on vectors."""

    def __init__(self, params: Parameters, lr: float = 1e-2) -> None:
        own = list(params)
        groups = [
            {"params": [p for p in own if p.dim() > 1], "weight_decay": 0.3},
            {"params": [p for p in own if p.dim() < 2], "weight_decay": 0.0},
        ]
        super().__init__([group for group in groups if group["params"]], lr=lr)


class Averaging(torch.optim.SGD):
    """Keeps an average by parameter, and goes down from there."""

    def __init__(self, params: Parameters, lr: float = 1e-2) -> None:
        super().__init__(params, lr=lr)
        self.averages = {p: p.detach().clone() for group in self.param_groups for p in group["params"]}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for parameter, average in self.averages.items():
            average.lerp_(parameter, 0.5)
            if parameter.grad is not None:
                parameter.copy_(average - 0.1 * parameter.grad)


class Opaque(torch.optim.SGD):
    """What its step depends on cannot be saved."""

    def __init__(self, params: Parameters, lr: float = 1e-2) -> None:
        super().__init__(params, lr=lr)
        self.numbers = (n for n in itertools.count(1))

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] = 0.01 / next(self.numbers)
        return super().step(closure)


KEEPING: list[Callable[..., torch.optim.Optimizer]] = [
    Warm, CountsInGroups, CountsItself, Masters, Groups, Averaging, torch.optim.Adafactor, torch.optim.NAdam
]  # fmt: skip


def named(seed: int) -> dict[str, nn.Parameter]:
    torch.manual_seed(seed)
    return {
        name: nn.Parameter(torch.randn(3, 3) if "w" in name else torch.randn(3)) for name in ("w1", "b1", "w2", "b2")
    }


def step(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], number: int) -> None:
    for name, parameter in parameters.items():
        generator = torch.Generator().manual_seed(number * 10 + list(named(0)).index(name))
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


@pytest.mark.parametrize("writers", [1, 2], ids=["whole", "from two ranks"])
@pytest.mark.parametrize("make", KEEPING, ids=lambda make: make.__name__)
def test_an_optimizer_goes_on_as_it_would_have(make: Callable[..., torch.optim.Optimizer], writers: int) -> None:
    whole = named(0)
    ranks = [whole] if writers == 1 else [{n: whole[n] for n in names} for names in (("w1", "b1"), ("w2", "b2"))]
    optimizers = [make(list(rank.values()), lr=0.01) for rank in ranks]
    told = [began(optimizer, names_of(rank.items())) for optimizer, rank in zip(optimizers, ranks, strict=True)]

    def advance(number: int) -> None:
        for optimizer, rank in zip(optimizers, ranks, strict=True):
            step(optimizer, rank, number)

    for number in range(3):
        advance(number)
    parts = [
        capture(optimizer, names_of(rank.items()), words)
        for optimizer, rank, words in zip(optimizers, ranks, told, strict=True)
    ]
    resumed = {name: nn.Parameter(parameter.detach().clone()) for name, parameter in whole.items()}
    again = make(list(resumed.values()), lr=0.01)
    restore(again, names_of(resumed.items()), parts)
    for number in range(3, 6):
        advance(number)
        step(again, resumed, number)
    for name, parameter in whole.items():
        assert same(parameter.detach(), resumed[name].detach()), name


def test_arguments_are_the_new_command_lines_where_nobody_moved_them() -> None:
    ours, theirs = named(0), named(1)
    optimizer = torch.optim.AdamW(list(ours.values()), lr=0.1)
    told = began(optimizer, names_of(ours.items()))
    step(optimizer, ours, 0)
    again = torch.optim.AdamW(list(theirs.values()), lr=0.2)
    restore(again, names_of(theirs.items()), [capture(optimizer, names_of(ours.items()), told)])
    assert again.param_groups[0]["lr"] == 0.2


def test_an_argument_that_was_moved_and_is_typed_anew_is_refused() -> None:
    ours, theirs = named(0), named(1)
    optimizer = CountsInGroups(list(ours.values()), lr=0.1)
    told = began(optimizer, names_of(ours.items()))
    step(optimizer, ours, 0)
    again = CountsInGroups(list(theirs.values()), lr=0.2)
    with pytest.raises(CannotRestoreError, match=r"lr began at 0\.1, was moved to 0\.095 .* is to begin at 0\.2 now"):
        restore(again, names_of(theirs.items()), [capture(optimizer, names_of(ours.items()), told)])


# Runs --------------------------------------------------------------------------------------------------------------


class Four(nn.Sequential):
    def __init__(self, heads: int = 2) -> None:
        super().__init__(*(nn.Linear(WIDTH, WIDTH) for _ in range(4)))
        self.heads = heads


class CountsCalls(Four):
    """Its output depends on how often it was called, which is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self[1] = Counting()


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * (1 + 1 / self.calls)


class Noisy(Four):
    """Draws from the generators of Python and numpy, which no seed of torch moves."""

    def __init__(self) -> None:
        super().__init__()
        self[1] = Noise()


class Noise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (random.random() + float(np.random.rand()) + random.gauss(1.0, 0.1))


EVERY = {"checkpoint": CheckpointOptions(every=1, keep=None), "steps": 4}


@pytest.mark.parametrize("make", [Warm, Masters], ids=lambda make: make.__name__)
def test_a_resumed_run_has_the_losses_of_the_one_that_was_not_interrupted(tmp_path: Path, make: Any) -> None:
    whole = run(experiment(Four, optimizer=make, **EVERY), tmp_path / "whole")
    source = str(tmp_path / "whole" / "checkpoints" / "step-00000002")
    for stages in (2, 4):
        again = run(experiment(Four, optimizer=make, num_stages=stages, resume=source, **EVERY), tmp_path / str(stages))
        assert again["losses"] == whole["losses"][2:]
        assert again["verified"] == "exact"


def test_random_numbers_of_python_and_numpy_go_on(tmp_path: Path) -> None:
    words = {**EVERY, "verify": False}
    whole = run(experiment(Noisy, **words), tmp_path / "whole")
    source = str(tmp_path / "whole" / "checkpoints" / "step-00000002")
    random.seed(5)
    np.random.seed(5)
    again = run(experiment(Noisy, resume=source, **words), tmp_path / "again")
    assert again["losses"] == whole["losses"][2:]


def test_an_optimizer_that_cannot_be_saved_is_refused_before_it_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint\.every: Opaque cannot go on from a checkpoint"):
        build_pipeline(experiment(Four, optimizer=Opaque, **EVERY), tmp_path, tmp_path)
    build_pipeline(experiment(Four, optimizer=Opaque), tmp_path)


def test_values_to_read_are_written_all_the_same_and_say_so(tmp_path: Path) -> None:
    options = CheckpointOptions(every=2, to_go_on=False)
    run(experiment(Four, optimizer=Opaque, checkpoint=options), tmp_path / "run")
    again = experiment(Four, optimizer=Opaque, resume=str(tmp_path / "run"), steps=4)
    with pytest.raises(ConfigError, match=r"holds values to read, not to go on from: checkpoint\.every: Opaque"):
        build_pipeline(again, tmp_path)


def test_a_model_that_counts_in_python_is_refused_with_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint\.every: .*1\.calls .* is no buffer"):
        build_pipeline(experiment(CountsCalls, **EVERY), tmp_path, tmp_path)
    build_pipeline(experiment(CountsCalls), tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after two steps of AdamW on two stages."""
    folder = tmp_path_factory.mktemp("written")
    run(experiment((Four, {"heads": 2}), optimizer="torch.optim.AdamW", **{**EVERY, "steps": 2}), folder)
    return folder / "checkpoints" / "step-00000002"


def resumed(checkpoint: Path, tmp_path: Path, **changes: Any) -> None:
    """What is decided before a process starts."""
    words: dict[str, Any] = {"optimizer": "torch.optim.AdamW", "steps": 4, "resume": str(checkpoint), **changes}
    build_pipeline(experiment(words.pop("model", (Four, {"heads": 2})), **words), tmp_path)


def test_another_model_is_refused_and_other_data_is_said(tmp_path: Path, written: Path) -> None:
    with pytest.raises(ConfigError, match=r"is of another model: model\.heads=4 here, 2 there"):
        resumed(written, tmp_path, model=(Four, {"heads": 4}))
    again = experiment((Four, {"heads": 2}), optimizer="torch.optim.AdamW", steps=4, resume=str(written), seed=5)
    assert "          seed=5 here, 0 there" in run(again, tmp_path / "again")["lines"]


def change_part(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    import hashlib

    content = torch.load(path / "part-0.pt", weights_only=True)
    change(content)
    torch.save(content, path / "part-0.pt")
    data = (path / "part-0.pt").read_bytes()
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["parts"][0] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    sign(path, manifest)


FORGED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a tensor is a number": (lambda c: c["model"].update({"0.weight": 3}), "model is not what was written"),
    "the model is a list": (lambda c: c.update(model=[]), "model is not what was written"),
    "the optimizer is a text": (lambda c: c.update(optimizer="x"), "optimizer is not what was written"),
    "random numbers are a text": (lambda c: c.update(random="x"), "random is not what was written"),
    "random numbers are short": (lambda c: c.update(random=c["random"][:8]), "random is not what was written"),
    "a state is a text": (lambda c: c["optimizer"]["state"].update({"0.weight": "x"}), "optimizer is not what was"),
    "exp_avg is missing": (
        lambda c: c["optimizer"]["state"]["0.weight"].pop("exp_avg"),
        "the optimizer's state of 0.weight has no exp_avg",
    ),
    "exp_avg has another shape": (
        lambda c: c["optimizer"]["state"]["0.weight"].update(exp_avg=torch.zeros(1)),
        "exp_avg of 0.weight is (1,) float32; valid: (8, 8) float32",
    ),
    "lr is a text": (
        lambda c: [options.update(lr="x") for options in c["optimizer"]["options"].values()],
        "resume=",
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_part_is_one_line_before_a_process(tmp_path: Path, written: Path, what: str) -> None:
    path = Path(shutil.copytree(written, tmp_path / written.name))
    change, text = FORGED[what]
    change_part(path, change)
    with pytest.raises(ConfigError) as found:
        resumed(path, tmp_path)
    assert text in str(found.value)
    assert str(found.value).startswith(f"resume={path}: ")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("value", ["1.7", "true", '"2"', "0", "-1", "Infinity", "NaN", "[2]", "1e400", "9" * 400, "3"])
def test_a_forged_step_is_refused(tmp_path: Path, written: Path, value: str) -> None:
    path = Path(shutil.copytree(written, tmp_path / written.name))
    manifest = json.loads((path / "manifest.json").read_text())
    sign(path, {**manifest, "step": json.loads(value)})
    with pytest.raises(ConfigError) as found:
        resumed(path, tmp_path)
    assert "\n" not in str(found.value)


def test_a_flipped_digit_of_the_manifest_is_found(tmp_path: Path, written: Path) -> None:
    path = Path(shutil.copytree(written, tmp_path / "copied"))
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"step": 2', '"step": 3'))
    with pytest.raises(ConfigError, match=r"manifest\.json is not what was written"):
        read(str(path))


def test_a_part_that_is_no_file_is_refused_at_once(tmp_path: Path, written: Path) -> None:
    import os

    path = Path(shutil.copytree(written, tmp_path / written.name))
    (path / "part-0.pt").unlink()
    os.mkfifo(path / "part-0.pt")
    with pytest.raises(ConfigError, match=r"part-0\.pt is not what was written"):
        read(str(path))
