"""torch's own replicas: replicate and FSDP2, around stages whose backward may be split."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from pipezoo.experiment.experiment import CheckpointOptions
from pipezoo.experiment.recipe import Recipe
from pipezoo.launch import Processes, Virtual
from pipezoo.launch.mesh import Mesh
from pipezoo.models import MultiMLP
from pipezoo.results.run_dir import read_result
from pipezoo.runtime import torch_replicas
from pipezoo.runtime.measurements import timelines
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.schedule.action import Action, Op
from pipezoo.schedule.lowering import lower, with_sharding
from pipezoo.schedules.zbv import zbv
from pipezoo.splitters import modules, replay
from tests.support.experiments import WIDTH as ROW
from tests.support.experiments import ending, experiment, run
from tests.support.pipelines import WIDTH, train

Build = Callable[..., Pipeline]
SPLIT = zbv(1, 3)  # two stages on one rank, backwards in halves
ADAM = partial(torch.optim.AdamW, lr=1e-2)
RECIPE: dict[str, Any] = {"recipe": Recipe(clip=0.05, ema=0.9, accumulate=2), "steps": 4, "optimizer": ADAM}


def built(pipeline: Build, dp_with: str, dp: int = 2, **changes: Any) -> Pipeline:
    actions = [with_sharding(of_process) for of_process in lower(SPLIT)]
    mesh = Mesh(dp=dp, dp_with=dp_with)
    return pipeline(partial(MultiMLP, WIDTH, 2), SPLIT, actions=actions, mesh=mesh, **changes)


@pytest.mark.parametrize(("dp_with", "split"), [("replicate", modules.split), ("fsdp", replay.split)])
def test_two_replicas_of_torch_are_exact_with_all_that_is_around_a_step(
    pipeline: Build, dp_with: str, split: Any
) -> None:
    job = built(pipeline, dp_with, split=split, **RECIPE)  # stages of replay hold ghosts of others' modules
    run = train(job)
    assert run.verdict["verified"] == "exact", run.verdict["first"]
    ops = [Op(int(op)) for op in timelines(job)[-1].op]
    assert [ops.count(op) for op in (Op.UNSHARD, Op.REDUCE_GRAD, Op.RESHARD)] == [2, 2, 2]


def test_three_replicas_of_torch_are_close(pipeline: Build) -> None:
    verdict = train(built(pipeline, "fsdp", 3, optimizer=ADAM)).verdict
    assert verdict["verified"] == "close", verdict["first"]
    assert verdict["max_relative_difference"] < 1e-6


def freed_behind_each_forward(module: nn.Module, mesh: Any, others: Any) -> nn.Module:
    """What FSDP2 does to blocks, unless it is told otherwise."""
    for part in [part for part in module.modules() if isinstance(part, nn.Linear)]:
        fully_shard(part, mesh=mesh)
    return fully_shard(module, mesh=mesh)


def test_gradients_that_a_freed_parameter_loses_are_caught(pipeline: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(torch_replicas.WRAPPERS, "fsdp", freed_behind_each_forward)
    assert train(built(pipeline, "fsdp")).verdict["verified"] == "failed"


def test_an_average_over_replicas_is_caught(pipeline: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    right = FSDPModule.set_gradient_divide_factor
    monkeypatch.setattr(FSDPModule, "set_gradient_divide_factor", lambda self, factor: right(self, 2.0))
    assert train(built(pipeline, "replicate")).verdict["verified"] == "failed"


def mlp() -> nn.Module:
    return MultiMLP(ROW, 2)


def test_a_checkpoint_of_shards_holds_whole_tensors(tmp_path: Path) -> None:
    """Written by shards, gone on from by replicas in turn: as if nobody had stopped."""
    every = {"optimizer": ("torch.optim.AdamW", {"lr": 0.01}), "recipe": Recipe(ema=0.9), "num_stages": 1}
    shards = {"launch": Processes(), "launch_name": "processes", "mesh": Mesh(dp=2, dp_with="fsdp")}
    in_turn = {"launch": Virtual(), "mesh": Mesh(dp=2), **every}
    started = run(experiment(mlp, steps=2, checkpoint=CheckpointOptions(every=2), **shards, **every), tmp_path / "a")
    assert started["verified"] == "exact"
    resumed = run(experiment(mlp, steps=3, resume=str(tmp_path / "a"), **in_turn), tmp_path / "b")
    assert resumed["verified"] == "exact"
    whole = run(experiment(mlp, steps=3, **in_turn), tmp_path / "c")
    assert resumed["losses"] == whole["losses"][2:]
    assert read_result(tmp_path / "a")["mesh"] == {
        "dp": 2,
        "tp": 1,
        "order": ["pp", "dp", "tp"],
        "dp_with": "fsdp",
    }


class ByNorm(torch.optim.SGD):
    """Divides each gradient by its norm."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad /= parameter.grad.norm() + 1e-6
        return super().step(*args, **kwargs)


def tied() -> nn.Module:
    layers = [nn.Linear(ROW, ROW) for _ in range(2)]
    layers[1].weight = layers[0].weight
    return nn.Sequential(*layers)


def scaled() -> nn.Module:
    model = MultiMLP(ROW, 2)
    model.layers[0].register_parameter("factor", nn.Parameter(torch.ones(())))
    return model


@pytest.mark.parametrize(
    ("model", "changes", "line"),
    [
        (mlp, {"optimizer": (ByNorm, {"lr": 0.1})}, "mesh.dp_with=fsdp: ByNorm moves layers.0.net1.weight elsewhere"),
        (mlp, {"launch": Virtual()}, "mesh.dp_with=fsdp: launch=processes trains replicas in turn, and adds them up"),
        (mlp, {"weight_grad": "deferred"}, "mesh.dp_with=fsdp: weight_grad=deferred looks for parameters elsewhere"),
        (tied, {}, "mesh.dp_with=fsdp: stages 0 and 1 both hold 0.weight, and torch wraps each stage by itself"),
        (scaled, {}, "mesh.dp_with=fsdp: layers.0.factor is a number without a dimension, which torch does not wrap"),
    ],
)
def test_what_torch_cannot_shard_is_one_line(tmp_path: Path, model: Any, changes: dict[str, Any], line: str) -> None:
    mesh = {"mesh": Mesh(dp=2, dp_with="fsdp"), "launch": Processes(), "launch_name": "processes"}
    code, text = ending(experiment(model, **mesh | changes), tmp_path)
    assert (code, text[: len(line)]) == (2, line)


def test_a_stage_is_gathered_before_it_computes_and_freed_when_its_gradients_are_added() -> None:
    actions = [Action.parse(text) for text in ["1RECV_F0", "0F0", "1F0", "1B0", "1REDUCE_GRAD", "0B0", "0REDUCE_GRAD"]]
    found = "1RECV_F0 0UNSHARD 0F0 1UNSHARD 1F0 1B0 1REDUCE_GRAD 1RESHARD 0B0 0REDUCE_GRAD 0RESHARD"
    assert " ".join(map(str, with_sharding(actions))) == found
    assert with_sharding(with_sharding(actions)) == with_sharding(actions)
