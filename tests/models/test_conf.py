"""The YAML of models and of what they name: documented keys, real arguments, and losses that fall."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

from pipezoo.config.compose import load as experiment_of
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.derive import derive
from pipezoo.runtime.stages import make_model
from tests.support.configs import compose

CONF = Path(__file__).parents[2] / "conf"
GROUPS = ("model", "data", "split", "loss", "optimizer")
FILES = [path for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
OF_EVERY_MODEL = yaml.safe_load((CONF / "every_model.yaml").read_text())
OURS = [path.stem for path in sorted((CONF / "model").glob("*.yaml")) if "Needs the extra" not in path.read_text()]
GIVEN_BY_PIPEZOO = {"batch_size", "seed", "model", "num_stages", "example", "params"}


def label(path):
    return f"{path.parent.name}/{path.stem}"


def target(node):
    module, _, name = node["_target_"].rpartition(".")
    return getattr(import_module(module), name)


def load(path):
    return yaml.safe_load(path.read_text())


def knobs(path):
    return {
        key: value
        for key, value in load(path).items()
        if key not in ("defaults", "_target_", "_stages_", *OF_EVERY_MODEL)
    }


def overrides(model):
    """Group -> choice that the model's YAML makes, e.g. {"data": "text"}."""
    entries = [entry for entry in load(CONF / "model" / f"{model}.yaml").get("defaults", []) if isinstance(entry, dict)]
    return {
        key.removeprefix("override /").partition("@")[0]: value for entry in entries for key, value in entry.items()
    }


@pytest.mark.parametrize("path", FILES, ids=label)
def test_every_key_has_a_comment(path):
    head, *lines = path.read_text().splitlines()
    assert head.startswith("# ")
    for line in lines:
        if line and not line.startswith((" ", "defaults:", "_target_:")):
            assert "  # " in line, line


@pytest.mark.parametrize("path", FILES, ids=label)
def test_keys_are_arguments_and_arguments_without_default_are_keys(path):
    parameters = inspect.signature(target(load(path))).parameters
    required = {name for name, p in parameters.items() if p.default is p.empty} - GIVEN_BY_PIPEZOO
    assert required <= set(knobs(path)) <= set(parameters) - GIVEN_BY_PIPEZOO


@pytest.mark.parametrize("path", sorted((CONF / "model").glob("*.yaml")), ids=label)
def test_a_model_names_choices_that_exist(path):
    choices = overrides(path.stem)
    assert {"data", "split"} <= set(choices)
    for group, choice in choices.items():
        assert (CONF / group / f"{choice}.yaml").exists()


WIDTH = {"gpt": "width", "unet": "width"}  # the argument that is the width; d_hid in all others


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("model", OURS)
def test_the_loss_of_a_default_run_falls_at_every_width(model, scale):
    width = f"model.{WIDTH.get(model, 'd_hid')}"
    default = load(CONF / "model" / f"{model}.yaml")[width.removeprefix("model.")]
    losses = losses_of(f"model={model}", f"{width}={scale * default}", f"steps={10 if model != 'gpt' else 3}")
    assert max(losses) < 1.05 * losses[0], losses  # no step jumps; every batch is another one
    assert losses[-1] < (0.95 if scale == 1 else 0.99) * losses[0], losses


def test_the_loss_of_a_wide_and_deep_run_falls():
    losses = losses_of("model=multi_mlp", "schedule=zbv", "model.d_hid=512", "batch_size=256", "stages=8")
    assert losses == sorted(losses, reverse=True)


def losses_of(*words: str) -> list[float]:
    """The losses of a run as one device has them, which are a pipeline's."""
    run = experiment_of(*compose(words), Allowlist())
    data = run.data(batch_size=derive(run).batch_size, seed=run.seed)
    model, loss_of = make_model(run.model, run.seed, torch.float32), run.loss()
    optimizer = run.optimizer(params=model.parameters())
    losses = []
    for step in range(run.steps):
        batch = data(step)
        optimizer.zero_grad()
        loss = loss_of(model(*batch.args, **batch.kwargs), batch.target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
