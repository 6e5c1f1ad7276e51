"""The matrix of meshes: what a cell promises, and that the page has all of them."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest

from benchmarks.mesh_matrix import BEGIN, END, MESHES, MODELS, PAGE, SCHEDULES, is_right, table, text_of, words_of

EXACT, CLOSE = {"verified": "exact"}, {"verified": "close", "max_relative_difference": 3e-7}
FAR, REFUSED = {"verified": "close", "max_relative_difference": 3e-6}, {"exit_code": 2}


@pytest.mark.parametrize(
    ("mesh", "result", "right"),
    [
        ("dp 3", EXACT, True),
        ("dp 3", CLOSE, False),
        ("pp 2 x fsdp 2", REFUSED, False),
        ("tp 2", CLOSE, True),
        ("tp 2", EXACT, False),
        ("pp 2 x tp 2", FAR, False),
    ],
)
def test_a_mesh_has_the_verdict_that_it_promises(mesh: str, result: dict[str, Any], right: bool) -> None:
    assert is_right(mesh, result) == right


def test_a_cell_is_told_in_a_word() -> None:
    assert [text_of(result) for result in (EXACT, CLOSE, REFUSED)] == ["exact", "close 3e-07", "exit 2"]
    assert words_of("multi_mlp", "zbv", "pp 2 x tp 2")[2:6] == ("schedule=zbv", "stages=4", "ranks=2", "mesh.tp=2")


def test_the_page_has_every_cell_as_it_should_be() -> None:
    shown = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    cells = {at: CLOSE if "tp" in at[-1] else EXACT for at in product(MODELS, SCHEDULES, MESHES)}
    assert re.sub(r"close \S+", "close", shown.strip()) == re.sub(r"close \S+", "close", table(cells))
