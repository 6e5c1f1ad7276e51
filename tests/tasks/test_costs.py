from __future__ import annotations

import pytest
import yaml

from pipezoo.config import compose, load
from pipezoo.cost import Cost
from pipezoo.costs.file import read
from pipezoo.costs.measured import measured
from pipezoo.errors import ConfigError
from pipezoo.parts.trust import Trust
from pipezoo.tasks.costs import costs_of


def experiment_of(*words):
    return load(*compose(["task=plan", "model=multi_mlp", "model.d_hid=16", *words]), Trust())


def test_measured_costs_are_a_cost_file_in_the_folder(tmp_path):
    said = []
    cost_of = costs_of(
        experiment_of("ranks=2", "cost=measured", "cost.steps=1", "cost.microbatches=4"), tmp_path, said.append
    )

    cost = cost_of(2, 1)

    assert cost.num_stages == 2
    assert (cost.seconds > 0).all()
    assert (cost.keeps > 0).all()
    assert cost.sends[0] == 4 * 16 * 4  # rows, features, bytes of float32
    assert read(2, file=tmp_path / "cost-2.yaml") == cost
    assert "# " in (tmp_path / "cost-2.yaml").read_text()
    assert yaml.safe_load((tmp_path / "cost-2.yaml").read_text())["stages"]
    assert cost_of(2, 1) is cost
    assert len(said) == 1


def test_costs_of_the_config_are_taken_as_they_are(tmp_path):
    assert isinstance(costs_of(experiment_of("cost.hop=0.5"), tmp_path, print)(4, 2), Cost)


def test_a_model_that_cannot_be_cut_so_often_is_one_line(tmp_path):
    cost_of = costs_of(experiment_of("cost=measured", "model.n_layers=2"), tmp_path, print)
    with pytest.raises(ConfigError, match="stages"):
        cost_of(3, 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_stages": None}, "num_stages=None: cost=measured needs to know how many stages"),
        ({"num_stages": 2, "steps": 0}, "steps=0: must be an int >= 1"),
        ({"num_stages": 2, "microbatches": 1}, "microbatches=1: must be an int >= 2"),
        ({"num_stages": 2, "latency": -1.0}, "latency=-1.0: must be a number >= 0"),
    ],
)
def test_what_cannot_be_measured_is_named(arguments, text):
    with pytest.raises(ValueError, match="=") as error:
        measured(**arguments)
    assert str(error.value).startswith(text)
