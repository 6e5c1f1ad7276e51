from __future__ import annotations

from itertools import permutations

import pytest

from pipezoo.config.compose import load
from pipezoo.errors import ConfigError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.launch.mesh import AXES, Mesh, Place
from pipezoo.tasks import plan, simulate
from pipezoo.topology.placement import Grid
from tests.support.configs import compose

BYTES = ("cost=table", "cost.stages.output_bytes=50e6", "cost.stages.grad_bytes=3e9", "cost.stages.tp_bytes=5e7")
WORLD = ("topology=h100", "ranks=8", "microbatches=16", "mesh.dp=4", "mesh.tp=2")


def simulated(folder, *words):
    said = []
    folder.mkdir(exist_ok=True)
    return simulate.run(load(*compose(["task=simulate", *words]), Allowlist()), folder, said.append), "\n".join(said)


@pytest.mark.parametrize("order", [*permutations(AXES)], ids=" ".join)
def test_processes_stand_where_the_mesh_puts_them(order):
    mesh, processes = Mesh(3, 2, order), Grid(4, 3, 2, order).processes
    for pp, dp, tp in ((0, 0, 0), (1, 2, 1), (3, 1, 0), (3, 2, 1)):
        assert processes[pp, dp, tp] == mesh.process(Place(pp, dp, tp), 4)


@pytest.mark.parametrize(
    ("order", "messages", "replicas", "shards"),
    [
        ("[pp,dp,tp]", {"between nodes": 7}, 1, 1),
        ("[dp,pp,tp]", {"in node": 6, "between nodes": 1}, 4, 1),
        ("[tp,dp,pp]", {"in node": 7}, 4, 2),
    ],
)
def test_an_order_says_which_messages_leave_a_node(order, messages, replicas, shards, tmp_path):
    result, said = simulated(tmp_path, *WORLD, *BYTES, f"mesh.order={order}")
    placement = result["placement"]
    assert placement["messages"] == messages
    assert placement["replicas"]["nodes"] == replicas
    assert placement["shards"]["nodes"] == shards
    assert placement["replicas"]["seconds"] > 0 < placement["shards"]["seconds"]
    assert f"order {order}; rank.replica.shard on each GPU" in said
    assert "node 0    0.0.0 " in said


def test_a_cost_that_knows_no_bytes_says_so(tmp_path):
    result, said = simulated(tmp_path, *WORLD, "cost=table")
    assert result["placement"]["replicas"]["seconds"] == 0
    assert "replicas  4 processes in one node: adding up takes no time, as cost.stages.grad_bytes=0" in said


def test_an_order_is_slower_where_its_links_are(tmp_path):
    near, far = (
        simulated(tmp_path / name, "topology=h100", "ranks=8", f"topology.gpus_per_node={gpus}", *BYTES)[0]
        for name, gpus in (("near", 8), ("far", 1))
    )
    assert near["step_seconds"]["median"] < far["step_seconds"]["median"]
    assert near["placement"]["messages"] == {"in node": 7}
    assert far["placement"]["messages"] == {"between nodes": 7}


def test_a_search_for_an_order_knows_the_links(tmp_path):
    steps = []
    for gpus in (8, 1):
        words = ["task=plan", "ranks=4", "topology=h100", f"topology.gpus_per_node={gpus}", *BYTES, "plan.search=false"]
        steps.append(
            plan.run(load(*compose(words), Allowlist()), tmp_path, lambda line: None)["step_seconds"]["median"]
        )
    assert steps[0] < steps[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("cost=unit",),
            "topology: has links in seconds and bytes per second, and these costs are in units",
        ),
        (
            ("cost=table", "topology.nodes=1"),
            "topology.nodes=1: 64 processes need more than 1 x 8 = 8 GPUs",
        ),
    ],
)
def test_what_cannot_be_placed_is_one_line(words, message, tmp_path):
    with pytest.raises(ConfigError) as error:
        simulated(tmp_path, *WORLD, *words)
    assert str(error.value).startswith(message)
    words = [word for word in (*WORLD, *words) if not word.startswith("microbatches")]
    with pytest.raises(ConfigError) as error:
        plan.run(load(*compose(["task=plan", "plan.search=false", *words]), Allowlist()), tmp_path, print)
    assert str(error.value).startswith(message)
