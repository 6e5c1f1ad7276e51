from __future__ import annotations

import pytest
import yaml

from pipezoo.errors import ArgumentError
from pipezoo.installed import conf_dir
from pipezoo.topology.topology import topology

LINK = {"latency": 1e-6, "bandwidth": 1e9}
DEVICE = {"flops": 1e12, "memory": 1e9, "memory_bandwidth": 1e9, "efficiency": 0.5}


@pytest.mark.parametrize("file", sorted((conf_dir() / "topology").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_topology_of_conf_can_be_made_and_plans_can_be_made_for_it(file):
    arguments = yaml.safe_load(file.read_text(encoding="utf-8"))
    del arguments["_target_"]
    made = topology(**arguments)
    assert made.device is not None
    assert made.in_node.bandwidth > made.between_nodes.bandwidth


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gpus_per_node": 0}, "gpus_per_node=0: must be an int >= 1"),
        ({"nodes": 0}, "nodes=0: must be an int >= 1"),
        ({"in_node": None}, "in_node=None: must have the keys latency, bandwidth"),
        ({"in_node": 3}, "in_node=3: must have the keys latency, bandwidth"),
        ({"between_nodes": {"latncy": 1}}, "between_nodes.latncy=1: no such key; valid: latency, bandwidth"),
        ({"between_nodes": {"bandwidth": 0}}, "between_nodes.bandwidth=0.0: must be a number > 0"),
        ({"nodes_per_rack": 4}, "nodes_per_rack=4: nodes_per_rack and between_racks come together"),
        ({"device": {"flops": 1.0}}, "device={'flops': 1.0}: memory is missing"),
        ({"device": DEVICE | {"efficiency": 1.5}}, "device.efficiency=1.5: must be a number in (0, 1]"),
        ({"device": DEVICE | {"memory": -1}}, "device.memory=-1: must be a number > 0"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(changed, message):
    arguments = {"gpus_per_node": 8, "in_node": LINK, "between_nodes": LINK} | changed
    with pytest.raises(ArgumentError) as error:
        topology(**arguments)
    assert str(error.value).startswith(message)
