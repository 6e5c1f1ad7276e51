"""executor.compile=true: what no compiled stage can do is said before any process starts, and the rest is verified."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.executors.native import Native, NativeRank
from pipezoo.executors.whole_backward import WholeBackward
from pipezoo.launch import Virtual
from pipezoo.runtime.executor import RankProgram
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.interleaved_zero_bubble import interleaved_zero_bubble
from pipezoo.schedules.zbv import zbv
from tests.support.experiments import WIDTH, ending, experiment
from tests.support.pipelines import WIDTH as FEATURES
from tests.support.pipelines import build_pipeline, train

COMPILED = ("pipezoo.executors.native.native", {"compile": True})
ZB_H1 = "pipezoo.schedules.zb_h1.zb_h1"
NO_COMPILER = shutil.which("g++") is None


class Layers(nn.Sequential):
    def __init__(self, dropout: float = 0.0) -> None:
        middle = nn.Dropout(dropout) if dropout else nn.LayerNorm(WIDTH)
        super().__init__(nn.Linear(WIDTH, WIDTH), middle, nn.Linear(WIDTH, WIDTH), nn.GELU())


class FourLayers(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(*(nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Tanh()) for _ in range(4)))


class Hooked(Layers):
    def __init__(self) -> None:
        super().__init__()
        self[0].weight.register_post_accumulate_grad_hook(lambda parameter: None)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "products of layers in W": (
        {"schedule": ZB_H1, "weight_grad": "deferred"},
        "weight_grad=deferred looks into layers, which are compiled away; valid: weight_grad=autograd",
    ),
    "a hook in a split backward": (
        {"schedule": ZB_H1, "model": Hooked},
        "the schedule splits backwards, and the hook after accumulation of 0.weight would not run; "
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


class WholeInI(Native):
    """Stages whose backward cannot be cut, uncompiled: so their bits are those of one device."""

    def of_rank(self, program: RankProgram) -> NativeRank:
        return NativeRank(replace(program, stages=[replace(stage, whole_backward=True) for stage in program.stages]))


@pytest.mark.parametrize("schedule", [zbv(2, 4), interleaved_zero_bubble(2, 4)], ids=lambda s: s.name)
def test_a_whole_backward_in_i_gives_the_bits_of_one_device(tmp_path: Path, schedule: Schedule) -> None:
    pipeline = build_pipeline(tmp_path, FourLayers, schedule, executor=WholeInI())
    assert train(pipeline).verdict["verified"] == "exact"


def test_what_w_does_not_add_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WholeBackward, "weight_gradient", lambda self, later: later.clear())
    pipeline = build_pipeline(tmp_path, FourLayers, zbv(2, 4), executor=WholeInI())
    assert train(pipeline).verdict["verified"] == "failed"


def test_i_lets_go_of_the_graph_and_w_of_what_was_put_down() -> None:
    layer = nn.Linear(4, 4)
    leaf = torch.randn(2, 4, requires_grad=True)
    halves, end = WholeBackward(layer), layer(leaf)
    (found,), later = halves.input_gradient([end], [torch.ones(2, 4)], [leaf])
    assert torch.equal(found, torch.ones(2, 4) @ layer.weight)
    assert layer.weight.grad is None
    halves.weight_gradient(later)
    assert torch.equal(layer.weight.grad, torch.ones(4, 2) @ leaf)
    assert later == []
    with pytest.raises(RuntimeError, match="second time"):
        end.sum().backward()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(NO_COMPILER, reason="there is no g++")
def test_compiled_stages_split_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    patient = Virtual(first_step_timeout=600.0, step_timeout=600.0)
    asked = experiment(Layers, executor=COMPILED, launch=patient, schedule=ZB_H1)
    code, verdict = ending(asked, tmp_path)
    assert code == 0
    assert verdict in ("exact", "close")
