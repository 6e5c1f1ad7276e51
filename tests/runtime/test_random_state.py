"""The random numbers of Python and numpy, saved as plain data, and values that are none."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipezoo.errors import ConfigError
from pipezoo.runtime.checkpoint import Checkpoint
from pipezoo.runtime.random_state import (
    is_random_of_libraries,
    random_of_libraries,
    seed_all,
    set_random_of_libraries,
)
from pipezoo.runtime.randomness import leaving_no_trace
from pipezoo.runtime.read_checkpoint import _is_recipe
from pipezoo.runtime.try_recipe import check_averages


def drawn() -> list[float]:
    return [random.random(), random.gauss(0.0, 1.0), float(np.random.rand()), float(np.random.randn())]


@pytest.mark.parametrize("before", [0, 1])
def test_they_go_on_where_they_were(before: int) -> None:
    with leaving_no_trace():
        seed_all(3)
        for _ in range(before):
            drawn()
        saved = random_of_libraries()
        expected = drawn()
        seed_all(4)
        set_random_of_libraries(saved)
        assert drawn() == expected
        assert is_random_of_libraries(saved)


def test_every_process_begins_from_the_seed() -> None:
    with leaving_no_trace():
        seed_all(2**40)
        first = drawn()
        seed_all(2**40)
        assert drawn() == first


LIES: list[Callable[[dict[str, Any]], Any]] = [
    lambda state: state["python"].update(words=torch.zeros(3, dtype=torch.int64)),
    lambda state: state["python"].update(words=torch.full((625,), -1)),
    lambda state: state["python"].update(version="3"),
    lambda state: state["python"].update(gauss="0"),
    lambda state: state["numpy"].update(words=torch.full((624,), 2**33)),
    lambda state: state["numpy"].update(place=-1),
    lambda state: state["numpy"].update(has_gauss=2),
    lambda state: state.pop("numpy"),
]


@pytest.mark.parametrize("lie", LIES)
def test_what_is_no_state_is_told(lie: Callable[[dict[str, Any]], Any]) -> None:
    state = random_of_libraries()
    lie(state)
    assert not is_random_of_libraries(state)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"loss_scale": 3.0},
        {"loss_scale": {"scale": "1", "since": 0}},
        {"loss_scale": {"scale": 0.0, "since": 0}},
        {"loss_scale": {"scale": float("nan"), "since": 0}},
        {"loss_scale": {"scale": 1.0, "since": 0.5}},
        {"average": [torch.zeros(1)]},
        {"average": {"weight": 1.0}},
    ],
)
def test_what_is_no_recipe_is_told(value: Any) -> None:
    assert _is_recipe({"loss_scale": {"scale": 2.0, "since": 3}, "average": {"weight": torch.zeros(1)}})
    assert not _is_recipe(value)


@pytest.mark.parametrize(
    ("averages", "line"),
    [
        ({"weight": torch.zeros(2, 3)}, "the average of weight is (2, 3); valid: (2, 2)"),
        ({"bias": torch.zeros(2)}, "the average of weight is missing; valid: (2, 2)"),
    ],
)
def test_averages_of_another_model_are_refused(averages: dict[str, torch.Tensor], line: str) -> None:
    saved = Checkpoint(Path("here"), 1, {}, {}, [], [], recipe={"average": averages})
    with pytest.raises(ConfigError) as error:
        check_averages(saved, torch.nn.Linear(2, 2, bias=False))
    assert str(error.value) == f"resume=here: {line}"
