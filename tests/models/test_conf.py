"""The YAML of models and of what they name: documented keys, real arguments, and losses that fall."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

from pipezoo.losses import TokenCrossEntropy

CONF = Path(__file__).parents[2] / "conf"
GROUPS = ("model", "data", "split", "loss", "optimizer")
FILES = [path for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
GIVEN_BY_PIPEZOO = {"batch_size", "seed", "model", "num_stages", "example", "params"}


def label(path):
    return f"{path.parent.name}/{path.stem}"


def target(node):
    module, _, name = node["_target_"].rpartition(".")
    return getattr(import_module(module), name)


def load(path):
    return yaml.safe_load(path.read_text())


def knobs(path):
    return {key: value for key, value in load(path).items() if key not in ("defaults", "_target_", "_stages_")}


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


SEED_MODELS = [
    "example_code", "model_with_kwargs", "model_with_param_alias",
    "multi_mlp", "multi_mlp_kwargs", "multi_mlp_with_dw",
]  # fmt: skip
INTERPOLATED = {"${stages_or:2}": 2, "${stages_at_least:4}": 4}


@pytest.mark.parametrize("model", [*SEED_MODELS, "gpt"])
def test_ten_steps_of_the_default_run_lower_the_loss(model):
    def make(group, choice, **given):
        path = CONF / group / f"{choice}.yaml"
        of_model = {f"${{model.{key}}}": value for key, value in knobs(CONF / "model" / f"{model}.yaml").items()}
        known = INTERPOLATED | of_model
        arguments = {key: known.get(value, value) if isinstance(value, str) else value
                     for key, value in knobs(path).items()}  # fmt: skip
        return target(load(path))(**arguments, **given)

    choices = {"optimizer": "sgd", "loss": "mse", **overrides(model)}
    torch.manual_seed(0)
    net = make("model", model)
    optimizer = make("optimizer", choices["optimizer"], params=net.parameters())
    batch = make("data", choices["data"], batch_size=32, seed=0)
    loss_of = make("loss", choices["loss"])
    losses = []
    for step in range(10):
        args, kwargs, expected = batch(step)
        loss = loss_of(net(*args, **kwargs), expected)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert isinstance(loss_of, TokenCrossEntropy) == (model == "gpt")
    assert losses[-1] < 0.9 * losses[0], losses
