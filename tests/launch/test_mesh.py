"""A grid of processes: each has one place, and every place has a process."""

from __future__ import annotations

import itertools

import pytest

from pipezoo.errors import ArgumentError
from pipezoo.launch.mesh import AXES, Mesh, Place


@pytest.mark.parametrize("order", list(itertools.permutations(AXES)), ids="-".join)
def test_every_process_has_a_place_of_its_own(order):
    mesh, pp = Mesh(dp=2, tp=3, order=order), 4
    places = [mesh.place(process, pp) for process in range(mesh.num_processes(pp))]
    assert len(places) == len({*places}) == 4 * 2 * 3
    assert [mesh.process(place, pp) for place in places] == [*range(24)]
    assert getattr(places[1], order[-1]) == 1  # the last one changes fastest
    assert getattr(places[-1 - 24 // mesh.shape(pp)[0]], order[0]) == mesh.shape(pp)[0] - 2


def test_replicas_of_a_rank_are_neighbours_unless_the_order_says_otherwise():
    assert [Mesh(dp=2).process(Place(1, dp), 2) for dp in (0, 1)] == [2, 3]
    assert [Mesh(dp=2, order=("dp", "pp", "tp")).process(Place(1, dp), 2) for dp in (0, 1)] == [1, 3]


def test_a_process_is_called_by_its_rank_and_its_replica():
    assert Mesh().names(["rank 0", "rank 1"]) == ["rank 0", "rank 1"]
    assert Mesh(dp=2).names(["rank 0", "rank 1"])[2:] == ["rank 1, replica 0", "rank 1, replica 1"]
    line = "2 ranks x 2 replicas, dp_with=ordered; replica 0 is processes 0 2, replica 1 is 1 3"
    assert Mesh(dp=2).describe(2) == line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"dp": 0}, "dp=0: must be an int >= 1"),
        ({"order": ["pp", "dp"]}, "order=['pp', 'dp']: must name each of pp, dp and tp once; valid: [pp,dp,tp]"),
        ({"order": "pp"}, "order=pp: must name each of pp, dp and tp once"),
        (
            {"dp_with": "orderd"},
            "dp_with=orderd: unknown word (did you mean ordered?); valid: fsdp, ordered, replicate",
        ),
        ({"dp_with": "ddp"}, "dp_with=ddp: the weight half of a split backward runs none of DDP's hooks"),
    ],
)
def test_what_is_no_grid_is_refused(arguments, line):
    with pytest.raises(ArgumentError) as error:
        Mesh(**arguments)
    assert str(error.value).startswith(line)
