"""Replicas of a pipeline: exact for any number of them against one device that trains their shares in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.errors import VerificationError
from pipezoo.experiment.precision import bf16, fp16
from pipezoo.experiment.recipe import Recipe
from pipezoo.launch.mesh import Mesh
from pipezoo.models import MultiMLP
from pipezoo.runtime import assemble, replicas
from pipezoo.runtime.fault_injection import Drift
from pipezoo.runtime.microbatching import ScaledLoss, of_batch, total
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.shares import Shares
from pipezoo.schedule.lowering import lower
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zbv import zbv
from pipezoo.splitters.modules import split as by_modules
from tests.support.experiments import WIDTH as ROW
from tests.support.experiments import ending, experiment
from tests.support.pipelines import WIDTH, build_pipeline, train

Build = Callable[..., Pipeline]
MLP, ALONE = partial(MultiMLP, WIDTH, 2), partial(MultiMLP, WIDTH, 1)
ORDER, ONE = one_f_one_b(2, 2), one_f_one_b(1, 2)  # of two ranks, and of one, whose replicas are processes too
TOGETHER = {"actions": lower(ORDER, (0, 0)), "stage_to_rank": (0, 0)}  # virtual ranks


def dropping() -> nn.Module:
    """Two blocks that draw random numbers."""
    return nn.Sequential(*(nn.Sequential(nn.Linear(ROW, ROW), nn.Dropout(0.5)) for _ in range(2)))


def mlp() -> nn.Module:
    return MultiMLP(ROW, 2)


def tied() -> nn.Module:
    """Four layers, the first and the last of which have one weight."""
    layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(4)]
    layers[3][0].weight = layers[0][0].weight
    return nn.Sequential(*layers)


def halves(model: Any, num_stages: int, example: Any) -> list[nn.Module]:
    return [model[:2], model[2:]]


@pytest.mark.parametrize(
    ("schedule", "dp"),
    [(one_f_one_b(1, 3), 3), (zbv(2, 4), 2)],
    ids=lambda value: getattr(value, "name", value),
)
def test_replicas_are_exact(pipeline: Build, schedule: Schedule, dp: int) -> None:
    run = train(pipeline(partial(MultiMLP, WIDTH, schedule.num_stages), schedule, mesh=Mesh(dp=dp)))
    assert run.verdict["verified"] == "exact", run.verdict["first"]
    assert len(run.losses[0]) == dp * schedule.num_microbatches + 1


RECIPES: dict[str, dict[str, Any]] = {
    "clipped, averaged, every second step": {"recipe": Recipe(clip=0.05, ema=0.9, accumulate=2), "steps": 4},
    "bf16": {"precision": bf16()},
    "fp16": {"precision": fp16(start=64.0)},
    "a sum": {"loss": nn.MSELoss(reduction="sum"), "optimizer": partial(torch.optim.SGD, lr=1e-5)},
    "Adam": {"optimizer": partial(torch.optim.AdamW, lr=1e-2)},
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_whatever_is_done_around_the_step_is_exact(pipeline: Build, recipe: str) -> None:
    verdict = train(pipeline(MLP, ORDER, mesh=Mesh(dp=3), **RECIPES[recipe], **TOGETHER)).verdict
    assert verdict["verified"] == "exact", verdict["first"]


def test_replicas_in_turn_have_the_numbers_of_replicas_beside_each_other(tmp_path: Path) -> None:
    recipe = {**RECIPES["clipped, averaged, every second step"], "mesh": Mesh(dp=2, order=("dp", "pp", "tp"))}
    runs = []
    for name, placed in (("in turn", TOGETHER), ("beside each other", {})):
        (tmp_path / name).mkdir()
        runs.append(train(build_pipeline(tmp_path / name, MLP, ORDER, **recipe, **placed)))
    assert [run.verdict["verified"] for run in runs] == ["exact", "exact"], runs[-1].verdict["first"]
    assert runs[0].losses == runs[1].losses


def test_where_one_replica_finds_an_infinite_gradient_all_skip_the_step(pipeline: Build) -> None:
    run = train(pipeline(ALONE, ONE, mesh=Mesh(dp=2), precision=fp16(start=2.0**40), steps=30))
    assert run.verdict["verified"] == "exact", run.verdict["first"]
    assert run.numbers[0]["loss_scale"] == 2.0**40 > run.numbers[-1]["loss_scale"]


@pytest.mark.parametrize(("order", "split"), [(zbv(1, 3), by_modules), (ORDER, halves)], ids=["one rank", "two ranks"])
def test_tied_weights_of_replicas_are_close_and_equal(pipeline: Build, order: Schedule, split: Any) -> None:
    adam = partial(torch.optim.AdamW, lr=1e-2)
    verdict = train(pipeline(tied, order, split, mesh=Mesh(dp=2), optimizer=adam)).verdict
    assert verdict["verified"] in ("close", "exact"), verdict["first"]
    assert verdict["max_relative_difference"] < 1e-6


def test_replicas_draw_random_numbers_of_their_own_rows(tmp_path: Path) -> None:
    asked = experiment(dropping, mesh=Mesh(dp=2), num_microbatches=2)
    assert ending(asked, tmp_path) == (0, "exact")


# Broken ------------------------------------------------------------------------------------------------------------


def apart(parameters: Sequence[nn.Parameter], group: Any) -> None:
    """What DDP does under a split backward: nothing."""


def in_another_order(parameters: Sequence[nn.Parameter], group: Any) -> None:
    for parameter in parameters:
        parameter.grad = total(replicas.gathered(parameter.grad, group)[::-1])


def averaged(parameters: Sequence[nn.Parameter], group: Any) -> None:
    for parameter in parameters:
        parameter.grad = total(replicas.gathered(parameter.grad, group)) / 2


def test_replicas_that_train_alone_are_found_after_the_first_update_without_a_reference(
    pipeline: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "add_in_order", apart)
    with pytest.raises(VerificationError) as error:
        train(pipeline(ALONE, ONE, mesh=Mesh(dp=2), verify=False))
    assert str(error.value) == (
        "replica 1 has another layers.0.net1.weight than replica 0 after its first update: they do not train one model"
    )


def test_a_replica_that_drifts_is_found_at_the_end(pipeline: Build) -> None:
    with pytest.raises(VerificationError, match=r"replica 1 has another .* than replica 0 after the last step"):
        train(pipeline(ALONE, ONE, mesh=Mesh(dp=2), verify=False, fault=Drift(rank=1, step=2)))


@pytest.mark.parametrize(
    ("instead", "verdict"), [(in_another_order, "close"), (averaged, "failed")], ids=["order", "mean"]
)
def test_another_sum_is_not_exact(pipeline: Build, monkeypatch: pytest.MonkeyPatch, instead: Any, verdict: str) -> None:
    monkeypatch.setattr(replicas, "add_in_order", instead)
    dp = 3 if verdict == "close" else 2  # a sum of two has one order
    assert train(pipeline(ALONE, ONE, mesh=Mesh(dp=dp))).verdict["verified"] == verdict


def test_microbatches_that_count_as_those_of_one_replica_fail(pipeline: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "scaled", lambda loss, num_slices: ScaledLoss(loss, num_slices // 2))
    assert train(pipeline(MLP, ORDER, mesh=Mesh(dp=2), **TOGETHER)).verdict["verified"] == "failed"


def test_tied_weights_that_are_summed_over_all_replicas_fail(pipeline: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    right = assemble.join

    def twice(*args: Any) -> Any:
        return [replace(tied, group=torch.distributed.group.WORLD) for tied in right(*args)]

    monkeypatch.setattr(assemble, "join", twice)
    verdict = train(pipeline(tied, ORDER, halves, mesh=Mesh(dp=2))).verdict
    assert verdict["verified"] == "failed"


# Their parts -------------------------------------------------------------------------------------------------------


def test_rows_are_dealt_in_equal_pieces_one_behind_the_other() -> None:
    rows = torch.arange(6)
    (one,) = Shares.of((rows,), rows + 10, range(1, 2), 3).rows
    assert [value.tolist() for value in (*one[0], one[1])] == [[2, 3], [12, 13]]
    assert Shares.none(range(2)).rows == (((), None), ((), None))


def test_losses_of_a_batch_are_those_of_its_shares_and_the_sum_of_their_totals() -> None:
    assert of_batch([[1.0, 2.0, 3.0], [4.0, 5.0, 9.0]]) == [1.0, 2.0, 4.0, 5.0, 12.0]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"mesh": Mesh(dp=2), "batch_size": 9}, "mesh.dp=2: batch_size=9 rows are not divisible by it; valid: 1, 3, 9"),
        (
            {"mesh": Mesh(dp=2), "batch_size": 6},
            "batch_size=6: is not divisible by microbatches=2 (of 3 rows for each of mesh.dp=2 replicas); "
            "valid microbatches: 1, 3",
        ),
        (
            {"mesh": Mesh(dp=2), "executor": "pipezoo.executors.torch_pipelining.TorchPipelining"},
            "mesh.dp=2: executor=",
        ),
    ],
)
def test_what_replicas_cannot_do_is_one_line(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    code, text = ending(experiment(mlp, **changes), tmp_path)
    assert (code, text[: len(line)]) == (2, line)
