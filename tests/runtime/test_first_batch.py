"""What a source of data hands over first: a batch, of numbers that one device has as well; else one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.data.batch import Batch
from pipezoo.data.regression import batches
from pipezoo.errors import ConfigError
from pipezoo.runtime.build import build_pipeline
from pipezoo.runtime.feed import DataError, made
from tests.support.experiments import WIDTH, experiment


class Chain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))


def source(batch_size: int, seed: int, kind: str = "batch") -> Callable[[int], Any]:
    inner = batches(batch_size, seed, WIDTH)

    def at(step: int) -> Any:
        batch = inner(step)
        return {
            "batch": batch,
            "tuple": (batch.args[0], batch.target),
            "list": [batch.args[0], batch.target],
            "dict": {"x": batch.args[0]},
            "none": None,
            "drawn": Batch((torch.rand(batch_size, WIDTH),), {}, batch.target) if kind == "drawn" else None,
        }[kind]

    return at


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("tuple", "it is of type tuple; valid: pipezoo.data.batch.Batch"),
        ("list", "it is of type list; valid: pipezoo.data.batch.Batch"),
        ("dict", "it is of type dict; valid: pipezoo.data.batch.Batch"),
        ("none", "it is of type NoneType; valid: pipezoo.data.batch.Batch"),
        ("drawn", "its batch draws from the random numbers of the process, which one device does not share"),
    ],
)
def test_what_is_no_batch_of_everybody_is_refused(tmp_path: Path, kind: str, line: str) -> None:
    with pytest.raises(ConfigError, match=f"data=source: {line}"):
        build_pipeline(experiment(Chain, data=(source, {"kind": kind})), tmp_path)


@pytest.mark.parametrize("words", [{"kind": "batch"}, {"kind": "drawn"}], ids=str)
def test_what_nobody_compares_may_be_drawn_and_moves_no_generator(tmp_path: Path, words: dict[str, Any]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(0)  # as the model does
    build_pipeline(experiment(Chain, data=(source, words), verify=False), tmp_path)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), expected)


def test_a_later_step_without_a_batch_is_one_line() -> None:
    with pytest.raises(DataError, match=r"data: the batch of step 2: ValueError: it is of type NoneType"):
        made(lambda step: None, 2)  # type: ignore[arg-type,return-value]
