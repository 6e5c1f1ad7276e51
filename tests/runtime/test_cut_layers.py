"""Stages whose layers are cut over two processes train as one device does, but for the order of their sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipezoo.errors import VerificationError
from pipezoo.experiment.recipe import Recipe
from pipezoo.experiment.tensor_plan import TensorPlan
from pipezoo.launch import Processes
from pipezoo.launch.mesh import Mesh
from pipezoo.models import MultiMLP
from pipezoo.models.gpt import CausalAttention
from pipezoo.results.run_dir import read_result
from pipezoo.runtime import gradient_norm, whole
from pipezoo.runtime.fault_injection import Drift
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.tensor_parallel import cuts_of
from pipezoo.runtime.try_tensor_parallel import try_cuts
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.interleaved_1f1b import interleaved_1f1b
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zbv import zbv
from pipezoo.splitters._addresses import write_addresses
from pipezoo.verify.rounding import makes_rounding_large
from tests.support.experiments import WIDTH as ROW
from tests.support.experiments import ending, experiment
from tests.support.pipelines import ROWS, WIDTH, Trained, train

Build = Callable[..., Pipeline]
MLP = TensorPlan(columns=("layers.*.net1",), rows=("layers.*.net2",))
ONE = one_f_one_b(1, 2)
NOISE = 1e-6  # of float32, far below the tolerance


def cut(pipeline: Pipeline, plan: TensorPlan) -> Pipeline:
    """With layers cut over the processes of a stage."""
    write_addresses(pipeline.stages.model)
    cuts = cuts_of(plan, pipeline.stages.model, pipeline.mesh.tp)
    return replace(pipeline, cuts=try_cuts(cuts, pipeline.stages.modules, (torch.randn(ROWS, WIDTH),), None))


def check_close(run: Trained) -> None:
    assert run.verdict["verified"] == "close", run.verdict["first"]
    assert run.verdict["max_relative_difference"] < NOISE


@pytest.mark.parametrize(
    ("schedule", "mesh"),
    [
        (interleaved_1f1b(2, 2, 2), Mesh(tp=2, order=("tp", "pp", "dp"))),
        (zbv(1, 2), Mesh(dp=2, tp=2)),
    ],
    ids=["interleaved", "zbv beside a replica"],
)
def test_cut_stages_are_close_to_one_device(pipeline: Build, schedule: Schedule, mesh: Mesh) -> None:
    run = train(cut(pipeline(partial(MultiMLP, WIDTH, schedule.num_stages), schedule, mesh=mesh), MLP))
    check_close(run)
    assert run.verdict["num_compared"] == 3 + 8 * schedule.num_stages  # losses; four gradients and four values a stage


class Attending(nn.Module):
    """Packed layers, heads, a norm that is not cut, a scale of parts, and a weight that two layers have."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(WIDTH), CausalAttention(WIDTH, 4)
        self.scale = nn.Parameter(torch.ones(1))
        self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.again = nn.Linear(WIDTH, WIDTH, bias=False)
        self.again.weight = self.down.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm(x).unsqueeze(1)).squeeze(1)
        return x + self.down(F.gelu(self.up(x) * self.scale)) + self.again(self.up(x).sin())


def attending() -> nn.Module:
    return nn.Sequential(Attending())


ATTENDING = TensorPlan(
    columns=("*.qkv", "*.up"), rows=("*.out", "*.down", "*.again"), packed={3: ("*.qkv",)}, heads=("*.heads",)
)


def test_heads_packed_layers_and_shared_weights_are_cut_too(pipeline: Build) -> None:
    recipe = {"recipe": Recipe(clip=0.05, ema=0.9, accumulate=2), "steps": 4}
    check_close(train(cut(pipeline(attending, ONE, mesh=Mesh(tp=2), **recipe), ATTENDING)))


class Dropping(nn.Module):
    """Drops whole features, behind its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.drop, self.down = nn.Linear(ROW, ROW), nn.Dropout(0.5), nn.Linear(ROW, ROW)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.down(self.up(x).relu()))


def dropping() -> nn.Module:
    return nn.Sequential(Dropping(), Dropping())


def test_all_who_share_a_stage_draw_the_numbers_of_one_device(tmp_path: Path) -> None:
    plan = TensorPlan(columns=("*.up",), rows=("*.down",))
    beside = {"launch": Processes(), "launch_name": "processes", "mesh": Mesh(tp=2)}
    asked = experiment(dropping, tensor_plan=plan, num_stages=1, **beside)
    assert ending(asked, tmp_path) == (0, "close")


@pytest.mark.parametrize(
    ("optimizer", "is_large"),
    [
        (partial(torch.optim.SGD, lr=0.1, momentum=0.9), False),
        (partial(torch.optim.AdamW, lr=0.1), True),
        (partial(torch.optim.SGD, weight_decay="much"), True),
    ],
)
def test_an_optimizer_that_makes_rounding_large_is_known(optimizer: Any, is_large: bool) -> None:
    assert makes_rounding_large(optimizer) == is_large


# Broken ------------------------------------------------------------------------------------------------------------


def failure(pipeline: Pipeline) -> str:
    verdict = train(pipeline).verdict
    assert verdict["verified"] == "failed"
    return str(verdict["first"])


def test_packed_layers_that_are_cut_as_one_fail(pipeline: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "reordered", lambda rows, packed, size: rows)
    assert "loss of step 0" in failure(cut(pipeline(attending, ONE, mesh=Mesh(tp=2)), ATTENDING))


def test_a_norm_of_parts_moves_copies_apart(pipeline: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_norm, "whole", lambda norm: norm.to_local() if hasattr(norm, "to_local") else norm)
    clipped = cut(pipeline(partial(MultiMLP, WIDTH, 1), ONE, mesh=Mesh(tp=2), recipe=Recipe(clip=0.05)), MLP)
    with pytest.raises(
        VerificationError, match=r"part 1 has another layers.0.net2.bias than part 0 after its first up"
    ):
        train(clipped)


def test_gradients_of_parts_that_nobody_adds_up_move_copies_apart(pipeline: Build) -> None:
    broken = cut(pipeline(attending, ONE, mesh=Mesh(tp=2)), ATTENDING)
    assert broken.cuts is not None
    assert broken.cuts.on_parts == {"0.scale"}
    with pytest.raises(VerificationError, match=r"part 1 has another 0.scale than part 0 after its first update"):
        train(replace(broken, cuts=replace(broken.cuts, on_parts=frozenset())))


def test_a_part_that_drifts_is_found_by_the_verdict(pipeline: Build) -> None:
    drifting = pipeline(partial(MultiMLP, WIDTH, 1), ONE, mesh=Mesh(tp=2), fault=Drift(rank=1, step=1, at="batch"))
    assert "loss of step 1" in failure(cut(drifting, MLP))


def test_a_copy_that_drifts_is_found_without_one(pipeline: Build) -> None:
    drifting = pipeline(attending, ONE, mesh=Mesh(tp=2), fault=Drift(rank=1, step=2, at="batch"), verify=False)
    with pytest.raises(VerificationError, match=r"part 1 has another 0.scale than part 0 after the last step"):
        train(cut(drifting, ATTENDING))


def test_a_run_goes_on_in_another_mesh_with_equal_numbers(cli: Callable[..., Any], tmp_path: Path) -> None:
    small = ("model=gpt", "model.depth=4", "model.width=16", "model.context=8", "batch_size=8", "optimizer.clip=1.0")
    parts = cli(*small, "ranks=1", "mesh.tp=2", "microbatches=4", "steps=1", "checkpoint.every=1", "hydra.run.dir=a")
    assert parts.code == 0, parts.err
    assert "verified  close" in parts.out
    replicas = ("stages=2", "mesh.dp=2", "microbatches=2", "steps=2", "checkpoint.every=2", "hydra.run.dir=b")
    beside = cli(*small, *replicas, "resume=a")
    assert "verified  exact" in beside.out, beside.err
    ranks = cli(*small, "stages=4", "microbatches=4", "steps=3", "resume=b", "launch=virtual", "hydra.run.dir=c")
    assert "verified  exact" in ranks.out, ranks.err
    whole = cli(*small, "stages=1", "microbatches=4", "steps=3", "hydra.run.dir=d", "launch=virtual")
    assert whole.code == 0, whole.err
    losses = [loss for folder in "abc" for loss in read_result(tmp_path / folder)["losses"]]
    assert losses == pytest.approx(read_result(tmp_path / "d")["losses"], rel=1e-6)
