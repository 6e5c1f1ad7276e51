"""Losses of several outputs, several targets and the model's inputs by name: exact in every order, broken, refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipezoo.data.batch import Batch, generator
from pipezoo.experiment.evaluation import EvalOptions
from pipezoo.launch.this_process import ThisProcess
from pipezoo.runtime.judged import Judged
from pipezoo.runtime.shares import Shares
from tests.support.experiments import HOW, PROCESSES, ending, experiment, run

VOCAB, LENGTH, WIDTH, SORTS = 16, 6, 8, 3


@dataclass
class Found:
    words: torch.Tensor
    sort: torch.Tensor


class Block(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x).tanh()


class OfRow(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.mean(1))


class Cache:
    """What a model returns beside its outputs: no tensor, and nothing that could cross."""


class Reader(nn.Module):
    """Says of every position its word, and of every row its sort."""

    def __init__(self, returns: str = "dict") -> None:
        super().__init__()
        self.embedding, self.returns = nn.Embedding(VOCAB, WIDTH), returns
        self.layers = nn.ModuleList(Block(WIDTH, WIDTH) for _ in range(2))
        self.words, self.sort = nn.Linear(WIDTH, VOCAB), OfRow(WIDTH, SORTS)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None, **weights: torch.Tensor) -> Any:
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x)
        words, sort = self.words(x), self.sort(x)
        if self.returns == "with a cache":
            return {"words": words, "sort": sort, "cache": Cache()}
        if self.returns == "tuple":
            return words, sort
        return {"words": words, "sort": sort} if self.returns == "dict" else Found(words, sort)


class Both(nn.Module):
    """Cross entropies of words, where the mask says so, and of sorts, weighted by row: summed over the batch."""

    def __init__(self, reduction: str = "sum") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, found: Any, target: dict[str, torch.Tensor], *, mask: torch.Tensor, weight: torch.Tensor) -> Any:
        words, sort = found if isinstance(found, tuple) else (found["words"], found["sort"])
        of_words = F.cross_entropy(words.flatten(0, 1), target["words"].flatten(), reduction="none")
        of_sorts = F.cross_entropy(sort, target["sort"], reduction="none")
        return (of_words * mask.flatten()).sum() + (of_sorts * weight).sum()


class Attributes(Both):
    def forward(self, found: Found, target: Any, *, mask: torch.Tensor, weight: torch.Tensor) -> Any:
        return super().forward((found.words, found.sort), target, mask=mask, weight=weight)


class Masked(nn.Module):
    """The mean over what the mask, an input of the model, lets count."""

    reduction = "mean"

    def forward(self, found: dict[str, torch.Tensor], target: dict[str, torch.Tensor], mask: torch.Tensor) -> Any:
        each = F.cross_entropy(found["words"].flatten(0, 1), target["words"].flatten(), reduction="none")
        return (each * mask.flatten()).sum() / mask.sum()

    def count(self, target: dict[str, torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        return mask.sum()


def read(batch_size: int, seed: int, whole: bool = True) -> Callable[[int], Batch]:
    def batch(step: int) -> Batch:
        draws = generator(seed, step)
        ids = torch.randint(VOCAB, (batch_size, LENGTH), generator=draws)
        lengths = torch.randint(1, LENGTH + 1, (batch_size, 1), generator=draws)
        mask, weight = (torch.arange(LENGTH) < lengths).float(), torch.rand(batch_size, generator=draws)
        target = {"words": ids.roll(1, 1), "sort": ids[:, 0] % SORTS}
        return Batch((ids,), {"mask": mask, "weight": weight}, target if whole else target["words"])

    return batch


def asked(loss: Any = Both, inputs: tuple[str, ...] = ("mask", "weight"), returns: str = "dict", **changes: Any) -> Any:
    words = {"num_microbatches": 4, "batch_size": 16, "num_stages": 4, "split": "pipezoo.splitters.replay.split"}
    words |= {"data": read, "loss": loss, "loss_inputs": inputs}
    return experiment((Reader, {"returns": returns}), **{**words, **changes})


@pytest.mark.parametrize("how", HOW)
def test_it_is_exact_in_every_order(how: str, tmp_path: Path) -> None:
    result = run(asked(**HOW[how]), tmp_path)
    assert (result["verified"], result["full_batch_difference"] < 1e-5) == ("exact", True)


def test_torchs_runtime_hands_on_tuples_alone(tmp_path: Path) -> None:
    torchs = {**PROCESSES, "num_stages": 2, "executor": "pipezoo.executors.torch_pipelining.TorchPipelining"}
    assert ending(asked(returns="tuple", **torchs), tmp_path / "tuple") == (0, "exact")
    code, line = ending(asked(**torchs), tmp_path / "dict")
    assert (code, line.partition("takes no output")[2]) == (
        2,
        " that is a dict; valid: executor=native, or model.output",
    )


@pytest.mark.parametrize(("returns", "loss"), [("tuple", Both), ("object", Attributes), ("with a cache", Both)])
def test_a_loss_is_given_what_the_model_returns(returns: str, loss: Any, tmp_path: Path) -> None:
    assert ending(asked(loss, returns=returns), tmp_path) == (0, "exact")


def test_a_mean_over_what_an_input_says_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    result = run(asked(Masked, ("mask",), eval=EvalOptions(every=1)), tmp_path)
    assert (result["verified"], result["full_batch_difference"] < 1e-5) == ("exact", True)


def test_an_input_of_another_microbatch_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a rank handed the loss the rows of its neighbour."""
    monkeypatch.setattr(Shares, "of", classmethod(shifted))
    code, line = ending(asked(launch=ThisProcess(), launch_name="here", num_stages=2), tmp_path)
    assert (code, "loss of step 0" in line) == (3, True), line


def shifted(cls: type[Shares], inputs: Any, target: Judged, chosen: range, num_shares: int) -> Shares:
    labels, given = target.parts()
    rolled = Judged.of(labels, {**given, "mask": given["mask"].roll(1, 0)})
    return cls(((tuple(inputs), rolled),), rolled)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"inputs": ("mash", "weight")},
            "loss.inputs=[mash,weight]: Both.forward: missing a required argument: 'mask'",
        ),
        ({"inputs": ("mask",)}, "loss.inputs=[mask]: Both.forward: missing a required argument: 'weight'"),
        (
            {"loss": Masked, "inputs": ("mask",), "data": (read, {"whole": False})},
            "model=Reader: the last stage returns a dict, and the loss fails: IndexError: ",
        ),
        ({"loss": "torch.nn.MSELoss", "inputs": ()}, "model.output=null: Reader returns a dict, and the loss takes a "),
        ({"loss": "torch.nn.MSELoss", "inputs": ("mask",)}, "loss.inputs=[mask]: MSELoss.forward: got an unexpected"),
    ],
)
def test_what_a_loss_cannot_take_is_refused(changes: dict[str, Any], line: str, tmp_path: Path) -> None:
    code, found = ending(asked(**changes), tmp_path)
    assert (code, found[: len(line)]) == (2, line), found


class Any_(Both):
    def forward(self, found: Any, target: Any, **inputs: Any) -> Any:
        return found["words"].sum()


def test_an_input_that_the_model_has_not_is_refused_with_those_that_it_has(tmp_path: Path) -> None:
    assert ending(asked(Any_, ("masks",)), tmp_path) == (
        2,
        "loss.inputs=[masks]: unknown input of the model (did you mean mask?); valid: ids, mask, weight",
    )


def test_the_key_is_one_of_every_loss(cli: Any) -> None:
    ended = cli("loss.inputs=[attention_mask]", "model=multi_mlp", "stages=2")
    why = "MSELoss.forward: got an unexpected keyword argument 'attention_mask'"
    assert ended.error_lines == [
        f"error: loss.inputs=[attention_mask]: {why}; valid: names that its forward has after output and target"
    ]
    ended = cli("loss.inputs=3", "model=multi_mlp", "stages=2")
    assert ended.error_lines == ["error: loss.inputs=3: must be names of the model's inputs, as [attention_mask]"]
