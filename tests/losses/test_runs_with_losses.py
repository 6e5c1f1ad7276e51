"""Losses that see what they need: means over what counts, several outputs, losses of stages; each exact, and each the
loss of the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipezoo.launch import Processes
from pipezoo.launch.this_process import ThisProcess
from pipezoo.losses import auxiliary, with_auxiliary
from pipezoo.runtime import microbatching
from tests.losses import padded
from tests.support.experiments import ending, experiment, run

SCHEDULES = {
    "1f1b": {},
    "zbv": {"schedule": "pipezoo.schedules.zbv.zbv", "num_stages": 4},
    "by hand": {
        "schedule": ("pipezoo.schedules.from_csv.from_csv", {"file": "conf/schedule/v_shape.csv"}),
        "num_stages": 4,
        "num_microbatches": 2,
    },
}
TWO_PROCESSES = {"launch": Processes(), "launch_name": "processes"}
WORDS = {"batch_size": 16, "num_microbatches": 4}


def on_padding(loss: Any, empty: bool = False, **changes: Any) -> Any:
    data = (padded.padded, {"empty": empty})
    return experiment(padded.Tagger, **{"data": data, "loss": loss, **WORDS, **changes})


def on_experts(weight: float = 0.1, **changes: Any) -> Any:
    return experiment((padded.Experts, {"weight": weight}), **{**WORDS, **changes})


def close_to_the_whole_batch(asked: Any, folder: Path) -> bool:
    result = run(asked, folder)
    assert result["verified"] == "exact"
    return result["full_batch_difference"] < 1e-5


LOSSES = [padded.Counted, padded.Classes, (padded.Classes, {"weighted": True}), "pipezoo.losses.TokenCrossEntropy"]


@pytest.mark.parametrize("empty", [False, True], ids=["", "a microbatch without any"])
@pytest.mark.parametrize("loss", LOSSES, ids=["count", "ignore_index", "weights of classes", "ours"])
def test_a_mean_over_what_counts_is_that_of_the_whole_batch(loss, empty, tmp_path):
    assert close_to_the_whole_batch(on_padding(loss, empty), tmp_path)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_it_is_exact_in_every_order(schedule, tmp_path):
    assert close_to_the_whole_batch(on_padding(padded.Counted, **SCHEDULES[schedule]), tmp_path)


def test_it_is_exact_on_processes_and_by_torchs_runtime(tmp_path):
    assert close_to_the_whole_batch(on_padding(padded.Counted, **TWO_PROCESSES), tmp_path / "native")
    changes = {"executor": "pipezoo.executors.torch_pipelining.TorchPipelining"}
    assert close_to_the_whole_batch(on_padding(padded.Counted, **changes), tmp_path / "torch")


def test_a_mean_that_does_not_say_what_it_is_over_is_refused(tmp_path):
    code, line = ending(on_padding(padded.Masked), tmp_path)
    assert (code, line[:34]) == (2, "loss.reduction=mean: is over 11 nu"), line
    assert "valid: reduction=sum, or a loss with ignore_index or a method count(target)" in line


def test_a_loss_that_counts_wrong_differs_from_the_whole_batch(tmp_path):
    assert run(on_padding(padded.Miscounted), tmp_path)["full_batch_difference"] > 1e-2


def test_a_count_of_the_microbatch_alone_is_caught(tmp_path, monkeypatch):
    """As if the scale came from the microbatch in the pipeline, and from the batch on one device."""
    real = microbatching.ScaledLoss.batch
    seen = []

    def batch(self: Any, target: Any, *rest: Any) -> Any:
        seen.append(target)
        return real(self, target if len(seen) > 2 else None, *rest)  # two steps of the pipeline, in this process

    monkeypatch.setattr(microbatching.ScaledLoss, "batch", batch)
    code, line = ending(on_padding(padded.Counted, launch=ThisProcess(), launch_name="here"), tmp_path)
    assert code == 3, line


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_losses_of_stages_count_as_the_whole_batch_has_them(schedule, tmp_path):
    result = run(on_experts(**SCHEDULES[schedule]), tmp_path)
    assert result["verified"] == "exact"
    assert result["full_batch_difference"] < 0.05  # the balance of a microbatch is not quite that of the batch


def test_losses_of_stages_are_exact_on_two_processes(tmp_path):
    assert ending(on_experts(**TWO_PROCESSES), tmp_path) == (0, "exact")


def test_a_loss_of_a_stage_that_counts_once_for_every_microbatch_is_far_from_the_whole_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(microbatching.ScaledLoss, "auxiliary_scale", 1.0)
    assert run(on_experts(weight=1.0), tmp_path)["full_batch_difference"] > 0.1


def test_a_loss_of_a_stage_has_the_gradient_of_a_sum():
    x, weight = torch.randn(4, 3), torch.randn(3, requires_grad=True)
    ((x * weight).sum() + (weight**2).sum()).backward()
    expected, weight.grad = weight.grad, None
    with_auxiliary(x * weight, (weight**2).sum()).sum().backward()
    assert torch.allclose(weight.grad, expected)
    with auxiliary.auxiliary_counts(0.5):
        weight.grad = None
        with_auxiliary(x * weight, (weight**2).sum()).sum().backward()
    assert torch.allclose(weight.grad, expected - weight.detach())
    with pytest.raises(ValueError, match=r"an auxiliary loss is one number, and this one has shape \(3,\)"):
        with_auxiliary(x, weight)


@pytest.mark.parametrize("launch", [{}, TWO_PROCESSES], ids=["virtual", "processes"])
def test_a_loss_sees_all_that_the_model_returns(launch, tmp_path):
    asked = experiment(padded.TwoOutputs, loss=padded.OfBoth, split=padded.halves, **{**WORDS, **launch})
    assert close_to_the_whole_batch(asked, tmp_path)


def test_a_loss_that_takes_one_output_of_two_is_refused(tmp_path):
    code, line = ending(experiment(padded.TwoOutputs, split=padded.halves, **WORDS), tmp_path)
    assert code == 2
    assert "the model returns 2 tensors, and the loss gets them all" in line
