from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipezoo.costs.file import read
from pipezoo.costs.table import table
from pipezoo.costs.unit import unit
from pipezoo.schedule.action import Op
from pipezoo.simulator.cost import P2P, Cost

CONF = Path(__file__).parents[2] / "conf" / "cost"
ENTRY = {"F": 1, "I": 2, "W": 3}


def written(name):
    """The keys of a file of conf/cost that its function takes."""
    keys = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    target = keys.pop("_target_")
    return target, keys


def test_a_whole_backward_that_nobody_gave_is_the_sum_of_its_halves_and_says_so():
    costs = Cost.from_dict({"stages": [ENTRY, {"F": 1, "B": 4, "I": 2, "W": 3}]})

    assert costs.seconds.tolist() == [[1, 5, 2, 3], [1, 4, 2, 3]]
    assert costs.derived == ["B = I + W on stage 0"]
    assert Cost.from_dict({"stages": ENTRY}, num_stages=2).derived == ["B = I + W on every stage"]


def test_halves_that_nobody_gave_stay_unknown():
    costs = Cost.from_dict({"stages": [{"F": 1, "B": 2}]})

    assert costs.seconds[0, [Op.F, Op.B]].tolist() == [1, 2]
    assert np.isnan(costs.seconds[0, [Op.I, Op.W]]).all()
    assert costs.derived == []


def test_one_entry_stands_for_every_stage():
    assert Cost.from_dict({"stages": ENTRY}, num_stages=3) == Cost.from_dict({"stages": [ENTRY] * 3})


def test_numbers_that_yaml_leaves_as_text_are_numbers():
    data = yaml.safe_load("stages: [{F: 1e-3, B: 2e-3}]\np2p: {latency: 5e-6, bandwidth: 1e9}")

    costs = Cost.from_dict(data)

    assert data["stages"][0]["F"] == "1e-3"
    assert costs.seconds[0, Op.F] == 0.001
    assert costs.p2p == P2P(5e-6, 1e9)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"stages": [ENTRY, ENTRY, ENTRY | {"F": -1}]}, "stages[2].F=-1: must be a number >= 0"),
        (
            {"stages": [ENTRY | {"activation_bytes": "many"}]},
            "stages[0].activation_bytes=many: must be a number >= 0",
        ),
        ({"stages": [ENTRY | {"W": math.nan}]}, "stages[0].W=nan: must be a number >= 0"),
        ({"stages": [ENTRY | {"W": math.inf}]}, "stages[0].W=inf: must be a number >= 0"),
        ({"stages": [ENTRY | {"I": True}]}, "stages[0].I=True: must be a number >= 0"),
        ({"stages": [{"B": 1}]}, "stages[0].F: is missing"),
        ({"stages": [{"F": 1}]}, "stages[0].B: is missing; give B, or I and W, or all three"),
        ({"stages": [{"F": 1, "B": 1, "I": 1}]}, "stages[0]: I and W are the two halves of a backward"),
        (
            {"stages": [ENTRY | {"activation_bytes": 1, "freed_by_input_grad": 2}]},
            "stages[0].freed_by_input_grad=2: F keeps only 1 bytes",
        ),
        ({"stages": [ENTRY | {"G": 1}]}, "stages[0].G=1: no such key; valid: F, B, I, W, activation_bytes"),
        ({"stages": [3]}, "stages[0]=3: must be a table of keys; valid: F, B"),
        ({"stages": []}, "stages=[]: must be a list of entries, one a stage"),
        ({"stages": ENTRY}, "stages: a single entry for every stage needs the number of stages"),
        ({}, "stages=None: must be a list of entries"),
        ([1], "cost=[1]: must be a table of keys; valid: stages, p2p"),
        ({"stages": [ENTRY], "hops": 1}, "cost.hops=1: no such key; valid: stages, p2p"),
        ({"stages": [ENTRY], "p2p": 3}, "p2p=3: must be a table of keys; valid: latency, bandwidth"),
        ({"stages": [ENTRY], "p2p": {"latency": -1}}, "p2p.latency=-1: must be a number >= 0"),
        ({"stages": [ENTRY], "p2p": {"bandwidth": 0}}, "p2p.bandwidth=0.0: must be a number > 0"),
        ({"stages": [ENTRY], "p2p": {"speed": 0}}, "p2p.speed=0: no such key"),
        ({"stages": [ENTRY], "overlap": "yes"}, "overlap=yes: must be true or false"),
        ({"stages": [ENTRY], "overlap_gain": 2}, "overlap_gain=2.0: must be a number in 0..1"),
        ({"stages": [ENTRY], "overlap_gain": 1, "overlap": False}, "overlap_gain=1.0: needs overlap=true"),
        ({"stages": [ENTRY], "ranks_per_node": 8}, "ranks_per_node=8: p2p_intra_node and ranks_per_node come together"),
        (
            {"stages": [ENTRY], "p2p_intra_node": {}, "ranks_per_node": 0},
            "ranks_per_node=0: must be an int >= 1",
        ),
    ],
)
def test_what_is_wrong_is_named_in_one_line(data, text):
    with pytest.raises(ValueError, match=": ") as error:
        Cost.from_dict(data)

    assert str(error.value).startswith(text)
    assert "\n" not in str(error.value)


def test_a_list_must_have_as_many_entries_as_the_pipeline_has_stages():
    two = {"stages": [ENTRY, ENTRY]}

    with pytest.raises(ValueError, match=r"stages\[2\]: is missing; 2 entries, but the pipeline has 3 stages"):
        Cost.from_dict(two, num_stages=3)
    with pytest.raises(ValueError, match=r"stages\[1\]: is one too many; 2 entries, but the pipeline has 1 stages"):
        Cost.from_dict(two, num_stages=1)


numbers = st.just(0.0) | st.floats(1e-100, 1e12)
freed = st.just(0.0) | st.floats(1e-100, 1e3)
entries = st.fixed_dictionaries(
    {"F": numbers, "I": numbers, "W": numbers, "activation_bytes": st.floats(1e3, 1e9)},
    optional={
        "B": numbers,
        "freed_by_input_grad": freed,
        "output_bytes": numbers,
        "optimizer": numbers,
    },
)
costs_as_dicts = st.fixed_dictionaries(
    {"stages": st.lists(entries, min_size=1, max_size=4)},
    optional={
        "p2p": st.fixed_dictionaries({}, optional={"latency": numbers, "bandwidth": st.floats(1, 1e12)}),
        "overlap": st.booleans(),
    },
)


@given(costs_as_dicts)
def test_written_and_read_again_a_cost_is_the_same(data):
    costs = Cost.from_dict(data)

    assert Cost.from_dict(yaml.safe_load(yaml.safe_dump(costs.to_dict()))) == costs
    assert Cost.from_dict(json.loads(json.dumps(costs.to_dict(), allow_nan=False))) == costs


def test_a_cost_that_knows_no_halves_and_two_kinds_of_hops_is_read_again_too():
    data = {
        "stages": [{"F": 1.0, "B": 2.0, "output_bytes": 8.0}],
        "p2p": {"latency": 1.0, "bandwidth": 2.0},
        "p2p_intra_node": {"latency": 0.5},
        "ranks_per_node": 4,
        "overlap": True,
        "overlap_gain": 0.5,
    }

    assert Cost.from_dict(data).to_dict() == data


def test_a_hop_takes_its_latency_and_its_bytes_over_the_bandwidth_between_ranks_only():
    stages = [ENTRY | {"output_bytes": 100.0 * (stage + 1)} for stage in range(4)]
    costs = Cost.from_dict({"stages": stages, "p2p": {"latency": 1, "bandwidth": 50}})

    assert costs.p2p_seconds([0, 1, 2, 3]).tolist() == [3, 5, 7]
    assert costs.p2p_seconds([0, 1, 1, 0]).tolist() == [3, 0, 7]


def test_within_a_node_a_hop_has_its_own_cost():
    costs = Cost.from_dict({"stages": [ENTRY] * 4, "p2p": {"latency": 9}, "p2p_intra_node": {}, "ranks_per_node": 2})

    assert costs.p2p_seconds([0, 1, 2, 3]).tolist() == [0, 9, 0]


def test_unit_cost_shares_a_ranks_time_and_memory_among_its_stages():
    costs = unit(4, stages_per_rank=2, p2p=0.25)

    assert costs.seconds.tolist() == [[0.5, 1.0, 0.5, 0.5]] * 4
    assert costs.activation_bytes.tolist() == [0.5] * 4
    assert costs.p2p_seconds([0, 1, 0, 1]).tolist() == [0.25] * 3


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_key_of_a_file_in_conf_cost_says_what_it_means(path):
    lines = [line for line in path.read_text().splitlines() if ": " in line and not line.lstrip().startswith("#")]

    assert [line for line in lines if "  # " not in line and not line.startswith("_target_")] == []


def test_the_hand_written_example_is_the_published_one():
    target, keys = written("table")
    costs = table(8, **keys)

    assert target == "pipezoo.costs.table.table"
    assert costs.seconds[7].tolist() == [0.018522, 0.018086 + 0.009337, 0.018086, 0.009337]
    assert costs.p2p_seconds(range(8)).tolist() == [0.000601] * 7


def test_the_unit_cost_of_conf_is_the_default():
    target, keys = written("unit")

    assert target == "pipezoo.costs.unit.unit"
    assert unit(4, 2, **keys) == unit(4, 2)


def test_a_cost_file_is_read_from_yaml_from_a_result_and_from_a_runs_folder(tmp_path):
    costs = unit(3)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(costs.to_dict()))
    (tmp_path / "result.json").write_text(json.dumps({"status": "ok", "prediction": {"cost": costs.to_dict()}}))

    for file in (tmp_path / "mine.yaml", tmp_path / "result.json", tmp_path):
        assert read(3, file=file) == costs
    assert read(8, file=CONF / "table.yaml").num_stages == 8


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.yaml", "stages: [{F: -1, B: 1}]", "stages[0].F=-1: must be a number >= 0"),
        ("a.yaml", "stages: [", "while parsing"),
        ("a.yaml", "", "cost=None: must be a table of keys"),
        ("result.json", "{}", "this run knew no costs"),
        ("result.json", "{", "Expecting property name"),
        ("a.yaml", b"\xff\xfe\xff", "not a text file"),
        ("a.yaml", None, "No such file or directory"),
    ],
)
def test_a_file_that_holds_no_costs_is_named_with_the_reason_in_one_line(tmp_path, name, text, expected):
    file = tmp_path / name
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(ValueError, match="file=") as error:
        read(1, file=file)

    assert str(error.value).startswith(f"file={file}: ")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
