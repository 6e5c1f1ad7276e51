"""What the first batch shows need not be true of the others: each is looked at, on the rank that makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.data.batch import Batch
from pipezoo.errors import ConfigError
from pipezoo.executors.native import native
from pipezoo.executors.torch_pipelining import TorchPipelining
from pipezoo.launch import Processes
from pipezoo.runtime.batch_shapes import check_batch, look
from tests.support.experiments import WIDTH, ending, experiment

ROWS = 8


class Positions(nn.Sequential):
    """Answers every position; the first half may be frozen."""

    def __init__(self, frozen: bool = False, pooled: bool = False) -> None:
        super().__init__(
            nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), Pool() if pooled else nn.Identity()
        )
        self[0].requires_grad_(not frozen)


class Pool(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1)


def lengths(
    batch_size: int, seed: int, later: Sequence[int], pooled: bool = False, rows: int | None = None
) -> Callable[[int], Batch]:
    """Batches of length 6, and from step 1 on of the lengths ``later`` in turn, with ``rows`` rows."""

    def batch(step: int) -> Batch:
        shape = (rows or batch_size, later[(step - 1) % len(later)], WIDTH) if step else (batch_size, 6, WIDTH)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed + step))
        return Batch((x,), {}, x.mean(1) if pooled else x)

    return batch


def asked(model: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **changes: Any) -> Any:
    words = {"batch_size": ROWS, "split": "pipezoo.splitters.modules.split", **changes}
    return experiment((Positions, model or {}), data=(lengths, data or {"later": (6,)}), **words)


def on_processes(model: dict[str, Any], data: dict[str, Any], **changes: Any) -> Any:
    return asked(model, data, launch=Processes(), launch_name="processes", **changes)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ({}, {"later": (4, 9)}),
        ({"frozen": True, "pooled": True}, {"later": (4,), "pooled": True}),
        ({}, {"later": (6,), "rows": 4}),
    ],
    ids=["shorter and longer", "one answer a row, frozen front", "fewer rows"],
)
@pytest.mark.parametrize("transport", ["shared_memory", "distributed"])
def test_processes_take_every_shape(
    tmp_path: Path, model: dict[str, Any], data: dict[str, Any], transport: str
) -> None:
    run = on_processes(model, data, steps=4, executor=(native, {"transport": transport}))
    assert ending(run, tmp_path) == (0, "exact")


@pytest.mark.parametrize("transport", ["shared_memory", "distributed"])
def test_a_stage_between_knows_the_shape_of_each_step(tmp_path: Path, transport: str) -> None:
    run = on_processes({}, {"later": (9,)}, num_stages=3, steps=3, executor=(native, {"transport": transport}))
    assert ending(run, tmp_path) == (0, "exact")


def test_torchs_runtime_refuses_another_shape_before_the_start(tmp_path: Path) -> None:
    code, line = ending(on_processes({}, {"later": (4,)}, executor=TorchPipelining), tmp_path)
    assert (code, line) == (
        2,
        f"data: input 0 is {(ROWS, 4, WIDTH)} float32 in step 1, and was {(ROWS, 6, WIDTH)} float32 in step 0; "
        "valid: executor=native, or batches of one shape with executor=TorchPipelining",
    )


def test_a_shape_that_came_too_late_to_be_looked_at_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipezoo.runtime.build.look", partial(look, seconds=-1.0))
    code, line = ending(on_processes({}, {"later": (4,)}), tmp_path)
    assert (code, line) == (
        2,
        f"data: input 0 is {(ROWS, 4, WIDTH)} float32 in step 1, and was {(ROWS, 6, WIDTH)} float32 in step 0; "
        "0 steps were looked at before the start; valid: shapes that these have, or launch=virtual, which sends no "
        "messages",
    )


@pytest.mark.parametrize("data", [{"later": (4, 9)}, {"later": (6,), "rows": 4}], ids=str)
def test_virtual_ranks_take_any_shape(tmp_path: Path, data: dict[str, Any]) -> None:
    assert ending(asked({}, data, steps=3), tmp_path) == (0, "exact")


def test_virtual_ranks_refuse_rows_that_make_no_equal_microbatches(tmp_path: Path) -> None:
    code, line = ending(asked({}, {"later": (6,), "rows": 5}), tmp_path)
    assert (code, line.partition("; ")[2]) == (2, "valid: as many rows in every tensor, a multiple of microbatches=2")


FIRST = (torch.empty(8, 4), torch.empty(8, dtype=torch.int64))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ((torch.empty(8, 4), torch.empty(8)), "the target is (8,) float32 in step 3, and was (8,) int64 in step 0"),
        ((torch.empty(8, 4), torch.empty(6, dtype=torch.int64)), "the target is (6,) int64"),
        ((torch.empty(()), torch.empty(8, dtype=torch.int64)), "input 0 is () float32"),
        ((torch.empty(0, 4), torch.empty(0, dtype=torch.int64)), "input 0 is (0, 4) float32"),
        ((torch.empty(8, 4),), "the batch of step 3 has 0 inputs, and that of step 0 has 1"),
    ],
)
def test_one_process_refuses(tensors: tuple[torch.Tensor, ...], words: str) -> None:
    with pytest.raises(ConfigError) as found:
        check_batch(3, tensors, FIRST, 4)
    assert words in str(found.value)
