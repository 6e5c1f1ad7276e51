"""executor.compile=true: what no compiled stage can do is said before any process starts, and the rest is verified."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from pipezoo.launch import Virtual
from tests.support.experiments import WIDTH, ending, experiment

COMPILED = ("pipezoo.executors.native.native", {"compile": True})
ZB_H1 = "pipezoo.schedules.zb_h1.zb_h1"
NO_COMPILER = shutil.which("g++") is None


class Layers(nn.Sequential):
    def __init__(self, dropout: float = 0.0) -> None:
        middle = nn.Dropout(dropout) if dropout else nn.LayerNorm(WIDTH)
        super().__init__(nn.Linear(WIDTH, WIDTH), middle, nn.Linear(WIDTH, WIDTH), nn.GELU())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a split backward": (
        {"schedule": ZB_H1},
        "the schedule splits backwards, and a compiled stage has one for inputs and weights together; "
        "valid: a schedule of full backwards (1f1b, interleaved_1f1b, gpipe)",
    ),
    "dropout": (
        {"model": (Layers, {"dropout": 0.1})},
        "1 draws random numbers, and a compiled stage has a stream of its own; valid: dropout and noise off",
    ),
}


@pytest.mark.skipif(NO_COMPILER, reason="there is no g++")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_compiled_is_said_before_the_start(tmp_path: Path, kind: str) -> None:
    words, why = REFUSED[kind]
    asked = experiment(**{"model": Layers, "executor": COMPILED, **words})
    assert ending(asked, tmp_path) == (2, f"executor.compile=true: {why}")


def test_a_machine_without_a_compiler_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert ending(experiment(Layers, executor=COMPILED), tmp_path) == (
        2,
        "executor.compile=true: needs a C++ compiler, and there is no no-such-compiler (CXX names another); "
        "valid: compile=false",
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(NO_COMPILER, reason="there is no g++")
def test_compiled_stages_are_verified(tmp_path: Path) -> None:
    patient = Virtual(first_step_timeout=600.0, step_timeout=600.0)
    code, verdict = ending(experiment(Layers, executor=COMPILED, launch=patient), tmp_path)
    assert code == 0
    assert verdict in ("exact", "close")
