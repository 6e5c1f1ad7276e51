"""Groups of parameters and a schedule of the learning rate: exact on every kind of order, resumed, and broken."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pipezoo.config.resolve import check_components
from pipezoo.errors import ConfigError
from pipezoo.experiment.component import Component
from pipezoo.experiment.experiment import CheckpointOptions, Experiment
from pipezoo.experiment.recipe import Recipe
from pipezoo.launch import Processes
from pipezoo.lr_schedules.warmup_cosine import warmup_cosine
from pipezoo.runtime import optimizing
from pipezoo.runtime.build import build_pipeline
from pipezoo.runtime.parameter_groups import places_of
from tests.support import recipes
from tests.support.experiments import TRUST, experiment, run
from tests.support.pipelines import Trained
from tests.support.recipes import ORDERS, Normed

GROUPS = Recipe(groups=[{"max_dims": 1, "weight_decay": 0.0}, {"names": ["0.*", "*.5.*"], "lr": 0.1}])
ADAMW = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.3)
COSINE = partial(warmup_cosine, updates=4, warmup=2)


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Trained]:
    return partial(recipes.trained, tmp_path, optimizer=ADAMW, recipe=GROUPS, lr_schedule=COSINE)


@pytest.mark.parametrize("order", ORDERS)
def test_groups_and_a_schedule_are_exact(trained: Callable[..., Trained], order: str) -> None:
    run = trained(order)
    assert run.verdict["verified"] == "exact"
    assert [step["lr"] for step in run.numbers] == [0.005, 0.01, 0.01]


def test_a_schedule_of_torch_with_a_rate_for_each_group_is_exact(trained: Callable[..., Trained]) -> None:
    one_cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=[0.01, 0.02, 0.03], total_steps=4)
    assert trained("zbv on 4 ranks", lr_schedule=one_cycle).verdict["verified"] == "exact"


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}])
def test_foreach_and_fused_are_kept(trained: Callable[..., Trained], options: dict[str, bool]) -> None:
    assert trained("1f1b on 2 ranks", optimizer=partial(ADAMW, **options)).verdict["verified"] == "exact"


def test_the_first_group_that_fits_counts() -> None:
    places = places_of(GROUPS.groups, Normed(2))
    assert places == {
        "0.norm.weight": 1, "0.norm.bias": 1, "0.linear.weight": 2, "0.linear.bias": 1,
        "1.norm.weight": 1, "1.norm.bias": 1, "1.linear.weight": 0, "1.linear.bias": 1,
    }  # fmt: skip


# Broken ------------------------------------------------------------------------------------------------------------


def test_a_rate_that_moves_once_too_often_is_caught(
    trained: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    once = optimizing.Optimized.move_rate

    def twice(self: Any) -> None:
        once(self)
        once(self)

    monkeypatch.setattr(optimizing.Optimized, "move_rate", twice)
    verdict = trained("a file").verdict
    assert verdict["verified"] == "failed"
    assert verdict["first"] == "lr of step 2: pipeline 0, one device 0.01"


def test_a_rank_that_never_moves_its_rate_is_caught(
    trained: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = optimizing.Optimized.move_rate
    monkeypatch.setattr(
        optimizing.Optimized, "move_rate", lambda self: None if "0.linear.weight" in self.named else moved(self)
    )
    verdict = trained("1f1b on 2 ranks").verdict
    assert verdict["verified"] == "failed"
    assert verdict["first"].startswith("loss of step 2 (stage 1): ")


def test_groups_that_a_rank_forgets_are_caught(
    trained: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizing, "in_groups", lambda groups, places, parameters: list(parameters.values()))
    assert trained("virtual zbv").verdict["verified"] == "failed"


# Refused, and resumed -----------------------------------------------------------------------------------------------


def asked(lr_schedule: Any = (warmup_cosine, {"warmup": 2}), **changes: Any) -> Experiment:
    target, arguments = lr_schedule or ("", {})
    name = f"{target.__module__}.{target.__qualname__}" if callable(target) else target
    given = ("optimizer",) if "updates" in arguments else ("optimizer", "updates")
    fields: dict[str, Any] = {
        "optimizer": ("torch.optim.AdamW", {"lr": 0.01}),
        "recipe": GROUPS,
        "lr_schedule": (
            name and Component("lr_schedule", name.rpartition(".")[2], name, arguments, given=given, trust=TRUST)
        )
        or None,
        "num_stages": 4,
        "data": ("pipezoo.data.regression.batches", {"d_hid": 16}),
        "steps": 4,
    }
    return experiment(Normed, **{**fields, **changes})


EVERY = {"checkpoint": CheckpointOptions(every=1, keep=None)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(asked(**EVERY), folder)


@pytest.mark.parametrize("stages", [2, 4])
def test_a_resumed_run_is_the_one_that_was_not_interrupted(whole: Any, tmp_path: Path, stages: int) -> None:
    folder, before = whole
    again = run(asked(num_stages=stages, resume=str(folder / "checkpoints/step-00000002")), tmp_path)
    assert (again["verified"], again["losses"]) == ("exact", before["losses"][2:])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"lr_schedule": None}, "was trained with LambdaLR lr_schedule, and this is none"),
        (
            {"lr_schedule": (torch.optim.lr_scheduler.StepLR, {"step_size": 2})},
            "is of another schedule of the learning rate: lr_schedule=torch.optim.lr_scheduler.StepLR here, "
            "pipezoo.lr_schedules.warmup_cosine.warmup_cosine there",
        ),
        ({"optimizer": ("torch.optim.AdamW", {"lr": 0.02})}, "lr began at 0.01, and is to begin at 0.02 now"),
        ({"steps": 8}, "is of another schedule of the learning rate: lr_schedule.updates=8 here, 4 there"),
        (
            {"lr_schedule": (warmup_cosine, {"warmup": 1})},
            "is of another schedule of the learning rate: lr_schedule.warmup=1 here, 2 there",
        ),
    ],
)
def test_a_checkpoint_of_another_schedule_is_refused(
    whole: Any, tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    folder = whole[0] / "checkpoints" / "step-00000002"
    with pytest.raises(ConfigError) as error:
        build_pipeline(asked(**{"resume": str(folder), **changes}), tmp_path)
    assert str(error.value) == f"resume={folder}: {line}"


class Normalized(torch.optim.SGD):
    """Divides by the norm of all gradients that it holds: on a rank, by that of its own."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        held = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in held])
        for parameter in held:
            parameter.grad /= norm
        return super().step(closure)


class Alone(torch.optim.SGD):
    """Of somebody else, and moves each parameter by itself."""


def test_an_optimizer_that_mixes_parameters_is_refused_on_ranks(tmp_path: Path) -> None:
    plain = {"lr_schedule": None, "recipe": Recipe(), "launch": Processes(), "launch_name": "processes"}
    with pytest.raises(ConfigError) as error:
        build_pipeline(asked(optimizer=(Normalized, {"lr": 0.1}), **plain), tmp_path)
    assert str(error.value) == (
        "optimizer=Normalized: Normalized moves 0.norm.weight elsewhere where it holds the parameters of one rank "
        "alone; valid: an optimizer that moves each parameter by itself, or launch=virtual"
    )
    build_pipeline(asked(optimizer=(Alone, {"lr": 0.1}), **plain), tmp_path)
    build_pipeline(asked(optimizer=(Normalized, {"lr": 0.1}), lr_schedule=None, recipe=Recipe()), tmp_path)


class Clips(torch.optim.SGD):
    """Has a word of its own for what is pipezoo's."""

    def __init__(self, params: Any, lr: float = 0.1, clip: float = 1.0) -> None:
        super().__init__(params, lr=lr)


def test_an_argument_that_is_called_like_a_key_of_the_recipe_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        check_components(asked(optimizer=(Clips, {}), lr_schedule=None))
    assert str(error.value) == (
        "optimizer._target_=tests.runtime.test_optimizing.Clips: has an argument clip, which pipezoo reads itself for "
        "every optimizer; valid: an argument of another name"
    )


class Asks(torch.optim.lr_scheduler.LRScheduler):
    """Its state cannot be saved."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.numbers = iter(range(100))
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        return [0.1 / (1 + next(self.numbers)) for _ in self.optimizer.param_groups]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"lr_schedule": (torch.optim.lr_scheduler.ReduceLROnPlateau, {})},
            "lr_schedule=ReduceLROnPlateau: ReduceLROnPlateau moves by losses of evaluations, "
            "and there are none; valid: eval.every=100 as well",
        ),
        (
            {"optimizer": "torch.optim.Muon", "recipe": Recipe()},
            "optimizer=Muon: takes matrices alone, and 0.norm.weight is (16,); valid: an optimizer of your own that "
            "moves the others by another rule, as in docs/training-recipe.md",
        ),
        (
            {"optimizer": "torch.optim.LBFGS", "recipe": Recipe()},
            "optimizer=LBFGS: LBFGS asks for a closure that computes the loss anew; valid: one whose step() needs none",
        ),
        (
            {"lr_schedule": (torch.optim.lr_scheduler.OneCycleLR, {"max_lr": 0.1, "total_steps": 3})},
            "lr_schedule=OneCycleLR: Tried to step 4 times. The specified number of total steps is 3",
        ),
        (
            {"lr_schedule": (Asks, {}), **EVERY},
            "checkpoint.every: AdamW cannot go on from a checkpoint: ValueError: the state_dict() of Asks holds more "
            "than numbers, words and tensors; valid: state_dict() and load_state_dict() with all that a step depends "
            "on, or checkpoint.every=null",
        ),
        (
            {"recipe": Recipe(groups=[{"names": "*.bais", "lr": 0.1}])},
            "optimizer.groups[0].names=[*.bais]: fits no parameter that learns; valid: 0.norm.weight, 0.norm.bias, "
            "0.linear.weight, 0.linear.bias, 1.norm.weight, 1.norm.bias ...",
        ),
        (
            {"recipe": Recipe(groups=[{"names": "*", "lr": 0.1}, {"names": "*.bias", "lr": 0.2}])},
            "optimizer.groups[1].names=[*.bias]: every parameter that fits is in a group before it; "
            "valid: another order of groups",
        ),
        (
            {"recipe": Recipe(groups=[{"max_dims": 1, "weight_decay": -1}])},
            "optimizer.groups[0].weight_decay=-1: Invalid weight_decay value: -1",
        ),
    ],
)
def test_what_cannot_be_stepped_or_fits_nothing_is_refused(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_pipeline(asked(**changes), tmp_path, tmp_path)
    assert str(error.value) == line
