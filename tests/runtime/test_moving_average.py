"""The moving average of the parameters, evaluated and exported: one device's bits, and the model's are untouched."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.errors import ConfigError
from pipezoo.experiment.evaluation import EvalOptions
from pipezoo.experiment.experiment import CheckpointOptions
from pipezoo.experiment.precision import Precision
from pipezoo.experiment.recipe import Recipe
from pipezoo.launch.this_process import ThisProcess
from pipezoo.runtime.checkpoint import complete
from pipezoo.runtime.moving_average import MovingAverage
from pipezoo.runtime.read_checkpoint import read
from pipezoo.runtime.safetensors_file import read_safetensors
from tests.support.experiments import HOW, WIDTH, component, ending, experiment, run


class Normed(nn.Sequential):
    """A stage has running statistics and parameters that do not learn, which no average has."""

    def __init__(self) -> None:
        blocks = (nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Tanh()) for _ in range(4))
        super().__init__(*blocks)
        self[1][0].bias.requires_grad_(False)


def asked(weights: str = "ema", every: int | None = 1, exported: str = "ema", **changes: Any) -> Any:
    words = {"num_microbatches": 4, "batch_size": 16, "steps": 4, "num_stages": 4, "recipe": Recipe(ema=0.5)}
    export = component("export", "pipezoo.exports.weights.safetensors", weights=exported)
    options = EvalOptions(every=every, weights=weights, best=every is not None)
    return experiment(Normed, eval=options, exports=(export,), **{**words, **changes})


def losses(result: dict[str, Any]) -> list[float]:
    return [told["loss"] for told in result["evaluations"]]


@pytest.fixture(scope="module")
def of_the_model(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """Runs that evaluate the model itself, by their number of microbatches: in every order they are one device's."""
    folder = tmp_path_factory.mktemp("model")
    return {count: run(asked("model", num_microbatches=count), folder / str(count)) for count in (2, 4)}


@pytest.mark.parametrize("how", HOW)
def test_averages_are_evaluated_with_one_devices_bits_and_change_nothing(
    how: str, tmp_path: Path, of_the_model: dict[int, dict[str, Any]]
) -> None:
    found = run(asked("ema", **HOW[how]), tmp_path)
    model = of_the_model[HOW[how].get("num_microbatches", 4)]
    assert found["verified"] == model["verified"] == "exact"
    assert found["losses"] == model["losses"]
    assert losses(found)[0] == losses(model)[0]  # the first average is a copy
    assert losses(found)[1:] != losses(model)[1:]


def test_masters_have_their_averages_evaluated_in_the_dtype_of_the_model(tmp_path: Path) -> None:
    masters = Precision(masters=True, parameters="bfloat16")
    words = {"precision": masters, "precision_name": "bf16_master", "dtype": "bfloat16"}
    assert ending(asked(**words), tmp_path) == (0, "exact")


def test_an_evaluation_of_the_model_instead_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MovingAverage, "in_place_of", lambda self, parameters: nullcontext())
    code, line = ending(asked(launch=ThisProcess(), launch_name="here"), tmp_path)
    assert (code, "eval_loss of step 1" in line) == (3, True), line


def test_averages_that_stay_in_the_parameters_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(self: MovingAverage, parameters: Any) -> Any:
        with torch.no_grad():
            for name, value in self.averages.items():
                parameters[name].copy_(value)
        return nullcontext()

    monkeypatch.setattr(MovingAverage, "in_place_of", fill)
    assert ending(asked(launch=ThisProcess(), launch_name="here"), tmp_path)[0] == 3


def test_the_best_average_is_kept_and_the_exported_file_is_that_of_the_last_step(tmp_path: Path) -> None:
    result = run(asked(checkpoint=CheckpointOptions(every=1, keep=None)), tmp_path)
    saved = read(str(complete(tmp_path / "checkpoints")[-1]))
    assert result["best"]["loss"] == min(losses(result))
    state = read_safetensors(tmp_path / "export" / "safetensors" / "model.safetensors")
    Normed().load_state_dict(state, strict=True)
    averages = saved.recipe["average"]
    assert "1.0.bias" not in averages  # which does not learn
    for name, value in state.items():
        assert torch.equal(value, averages.get(name, saved.model[name])), name
    assert not torch.equal(state["0.0.weight"], saved.model["0.0.weight"])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"recipe": Recipe()}, "eval.weights=ema: no average is kept; valid: optimizer.ema=0.999 as well, or model"),
        ({"every": None}, "weights=ema: nothing is evaluated; valid: eval.every=100 as well"),
        ({"weights": "emma"}, "weights=emma: unknown word (did you mean ema?)"),
        (
            {"weights": "model", "recipe": Recipe()},
            "export.weights=ema: no average is kept; valid: optimizer.ema=0.999 as well, or model",
        ),
    ],
)
def test_an_average_that_is_not_there_is_refused(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    with pytest.raises((ConfigError, ValueError), match="ema") as refused:
        run(asked(**changes), tmp_path)
    assert str(refused.value).startswith(line), refused.value
