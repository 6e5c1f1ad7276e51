from __future__ import annotations

import pytest

from pipezoo.errors import ArgumentError
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.p2p import P2P, Links
from pipezoo.simulator.skip_messages import SkipMessage

LINKS = Links((P2P(1.0), P2P(2.0), P2P(4.0)), ((0, 0), (0, 0), (1, 0), (2, 1)))


def test_the_first_level_that_two_ranks_share_is_their_link():
    assert [LINKS.seconds(0, other, 0.0) for other in range(4)] == [0.0, 1.0, 2.0, 4.0]


def test_neighbours_and_skips_take_what_their_link_takes():
    cost = Cost(F=[1.0] * 4, B=[1.0] * 4, links=LINKS, skips=(SkipMessage(0, 3, 8.0), SkipMessage(1, 3, 8.0)))
    assert cost.p2p_seconds([0, 1, 2, 3]).tolist() == [1.0, 2.0, 4.0]
    assert cost.p2p_seconds([0, 1, 1, 0]).tolist() == [1.0, 0.0, 1.0]
    assert [seconds for _, seconds in cost.skip_seconds([0, 1, 2, 3])] == [4.0, 4.0]
    assert cost.instant().p2p_seconds([0, 1, 2, 3]).tolist() == [0.0, 0.0, 0.0]


def test_links_and_bytes_survive_a_file():
    cost = Cost(F=[1.0] * 4, B=[1.0] * 4, links=LINKS, tp_bytes=3.0, grad_bytes=5.0)
    again = Cost.from_dict(cost.to_dict())
    assert again.links == LINKS
    assert again.tp_bytes.tolist() == [3.0] * 4
    assert again.grad_bytes.tolist() == [5.0] * 4
    assert again == cost


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (1, "links=1: must have the keys levels, places"),
        ({"levels": [], "places": []}, "links.levels=[]: needs at least one"),
        ({"levels": [{}, {}], "places": [[0], []]}, "links.places[1]=[]: needs 1 numbers"),
        ({"levels": [{}, {}], "places": [[-1]]}, "links.places[0]=-1: must be an int >= 0"),
        ({"levels": [{"latency": 1, "lag": 2}], "places": [[]]}, "links.levels[0]={'latency': 1, 'lag': 2}: must have"),
        ({"levels": [{}], "places": "ab"}, "links={'levels': [{}], 'places': 'ab'}: levels and places must be lists"),
        ({"levels": [{}], "places": [3]}, "links.places[0]=3: must be a list of numbers"),
    ],
)
def test_what_is_wrong_is_named(data, message):
    with pytest.raises(ArgumentError) as error:
        Cost.from_dict({"stages": [{"F": 1, "B": 2}], "links": data})
    assert str(error.value).startswith(message)


def test_a_rank_without_a_place_is_named():
    cost = Cost(F=[1.0] * 5, B=[1.0] * 5, links=LINKS)
    with pytest.raises(ArgumentError, match="has 4 ranks, and there is a rank 4"):
        cost.p2p_seconds([0, 1, 2, 3, 4])
