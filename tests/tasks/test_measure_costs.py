from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch
import yaml

from pipezoo.config.compose import load
from pipezoo.costs.file import read
from pipezoo.costs.profiled import measured
from pipezoo.errors import ConfigError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.registry import conf_dir
from pipezoo.simulator.cost import P2P, Cost
from pipezoo.tasks.measure_costs import check_rows, costs_of
from tests.support.configs import compose

SMALL = {"d_hid": 16, "width": 16, "context": 8, "heads": 2}


def experiment_of(*words):
    return load(*compose(["task=plan", "model=multi_mlp", "model.d_hid=16", *words]), Allowlist())


MEASURED = ("ranks=2", "cost=measured", "cost.steps=1", "cost.microbatches=4")


def test_measured_costs_are_a_cost_file_in_the_folder(tmp_path):
    said = []
    cost_of = costs_of(experiment_of(*MEASURED), tmp_path, said.append)

    cost = cost_of(2, 1, 8)

    assert cost.num_stages == 2
    assert (cost.seconds > 0).all()  # F, B, I and W
    assert not cost.full_backward_is_derived.any()
    assert (cost.activation_bytes > 0).all()
    assert cost.output_bytes[0] == 4 * 16 * 4  # rows, features, bytes of float32
    assert cost.p2p.latency >= 0
    file = tmp_path / "cost-2-stages-4-rows.yaml"
    assert read(2, file=file) == cost
    assert "message of 1024 bytes" in file.read_text()
    assert yaml.safe_load(file.read_text())["stages"]
    assert cost_of(2, 1, 16) is cost  # rows of a microbatch are the same
    assert [line.split()[1:3] for line in said] == [["a", "message"], ["2", "stages,"]]


def test_a_shared_batch_is_measured_by_the_rows_of_its_microbatches(tmp_path):
    cost_of = costs_of(experiment_of(*MEASURED, "cost.latency=0", "cost.bandwidth=1e9", "batch_size=32"), tmp_path, str)

    assert [cost_of(2, 1, m).output_bytes[0] for m in (4, 8)] == [8 * 16 * 4, 4 * 16 * 4]
    assert (tmp_path / "cost-2-stages-8-rows.yaml").exists()
    with pytest.raises(ConfigError, match="batch_size=32: is not divisible by microbatches=5"):
        cost_of(2, 1, 5)


def test_numbers_that_are_given_are_not_measured(tmp_path):
    said = []
    cost_of = costs_of(experiment_of(*MEASURED, "cost.latency=0.5", "cost.bandwidth=1e9"), tmp_path, said.append)
    assert cost_of(2, 1, 8).p2p == P2P(0.5, 1e9)
    assert len(said) == 1


def test_virtual_ranks_have_the_messages_of_their_launch(tmp_path):
    words = ("launch=virtual", "launch.latency=0.25", "launch.bandwidth=1e6")
    assert costs_of(experiment_of(*MEASURED, *words), tmp_path, str)(2, 1, 8).p2p == P2P(0.25, 1e6)


def test_costs_of_the_config_are_taken_as_they_are(tmp_path):
    assert isinstance(costs_of(experiment_of("cost.p2p=0.5"), tmp_path, print)(4, 2, 8), Cost)


def test_a_model_that_cannot_be_cut_so_often_is_one_line(tmp_path):
    words = ("cost=measured", "cost.latency=0", "cost.bandwidth=1e9", "model.n_layers=2")
    cost_of = costs_of(experiment_of(*words), tmp_path, print)
    with pytest.raises(ConfigError, match="stages"):
        cost_of(3, 1, 8)


def test_one_cost_cannot_stand_for_microbatches_of_several_sizes():
    with pytest.raises(ConfigError, match=r"^batch_size=64: 8 and 16 microbatches of it differ in rows, and cost=unit"):
        check_rows(experiment_of("batch_size=64"), (8, 16))
    check_rows(experiment_of("batch_size=64"), (8,))
    check_rows(experiment_of("batch_size=64", "cost=measured"), (8, 16))
    check_rows(experiment_of(), (8, 16))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_stages": None}, "num_stages=None: cost=measured needs to know how many stages"),
        ({"num_stages": 2, "steps": 0}, "steps=0: must be an int >= 1"),
        ({"num_stages": 2, "microbatches": 1}, "microbatches=1: must be an int >= 2"),
        ({"num_stages": 2, "bandwidth": 0.0}, "bandwidth=0.0: must be a number > 0"),
        ({"num_stages": 2, "latency": -1.0}, "latency=-1.0: must be a number >= 0"),
    ],
)
def test_what_cannot_be_measured_is_named(arguments, text):
    with pytest.raises(ValueError, match="=") as error:
        measured(**arguments)
    assert str(error.value).startswith(text)


MODELS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))


@pytest.mark.parametrize("model", MODELS)
def test_measuring_leaves_generators_and_modes_as_they_were(model, tmp_path):
    text = (conf_dir() / "model" / f"{model}.yaml").read_text()
    small = [f"model.{key}={value}" for key, value in SMALL.items() if f"\n{key}: " in text]
    words = (f"model={model}", *small, "ranks=2", "cost=measured", "cost.steps=1", "cost.microbatches=2", "seed=3")
    run = load(*compose(["task=plan", "launch=virtual", *words]), Allowlist())
    torch.manual_seed(1234)
    random.seed(5)
    np.random.seed(6)
    before = state_of_the_process()

    try:
        assert costs_of(run, tmp_path, str)(2, 1, 4).num_stages == 2
    except ConfigError as error:
        if "which is not installed" not in str(error):
            raise
        pytest.skip(str(error))

    assert state_of_the_process() == before


def state_of_the_process():
    """What a measurement could leave behind, beside the files of its folder."""
    modes = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), os.getcwd()
    numbers = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()
    return modes, numbers, torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled()
