"""A line between two machines: whole messages, strangers, and ends that are gone."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Iterator

import pytest

from pipezoo.errors import ConfigError
from pipezoo.found_world import FoundWorld
from pipezoo.supervisor.clocks import Clock, Offset
from pipezoo.supervisor.line import FRAME, MOST_OF_A_STRANGER, Line, packed, unpacked
from pipezoo.supervisor.this_machine import check_same
from pipezoo.supervisor.world_host import Host

Ends = tuple[Line, Line]


@pytest.fixture
def ends() -> Iterator[Ends]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    pair = Line(one, 5.0), Line(other, 5.0)
    for line in pair:
        line.trust()
    yield pair
    for line in pair:
        line.close()


@pytest.mark.parametrize(
    "content",
    [
        {"losses": [1.5, math.inf], "numbers": {"grad_norm": 0.1}},
        {"result": {"peak": {0: 8, 1: 16}, "rest": None}},
        {"nested": {"by": {2: {"a": [{3: 4}]}}}},
    ],
)
def test_what_is_sent_arrives(ends: Ends, content: dict) -> None:
    assert ends[0].send("step", **content)
    assert ends[1].wait(5.0) == [{"kind": "step", **content}]


def test_a_number_that_is_none_arrives_as_one(ends: Ends) -> None:
    ends[0].send("step", losses=[math.nan])
    assert math.isnan(ends[1].wait(5.0)[0]["losses"][0])


def test_bytes_travel_beside_the_words_and_messages_stay_apart(ends: Ends) -> None:
    for number in range(3):
        ends[0].send("log", bytes([number]) * 100_000)
    heard = []
    while len(heard) < 3:
        heard += ends[1].wait(5.0)
    assert [message["blob"] for message in heard] == [bytes([number]) * 100_000 for number in range(3)]


@pytest.mark.parametrize(
    "bytes_sent",
    [
        FRAME.pack(MOST_OF_A_STRANGER + 1, 0),
        FRAME.pack(4, 1),
        FRAME.pack(4, 0) + b"nope",
        FRAME.pack(2, 0) + b"[]",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_stranger_who_sends_something_else_is_sent_away(bytes_sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    line = Line(ours, 1.0)
    theirs.sendall(bytes_sent)
    assert line.messages() == []
    assert not line.open
    assert line.why == "it sent what is no message"
    theirs.close()


def test_an_end_that_has_gone_is_noticed(ends: Ends) -> None:
    ends[0].close()
    assert ends[1].wait(5.0) == []
    assert (ends[1].open, ends[1].why) == (False, "")
    assert not ends[1].send("step")


def test_a_message_that_nobody_misses_is_dropped_where_it_would_wait() -> None:
    ours, theirs = socket.socketpair()
    line = Line(ours, 1.0)
    while line.offer("beat", step=1):
        pass
    assert line.open
    theirs.close()


def test_a_dict_comes_back_with_keys_that_are_numbers() -> None:
    value = {"memory": {0: [1, 2], 1: []}, "text": "{}"}
    assert unpacked(json.loads(json.dumps(packed(value)))) == value


def test_a_clock_moves_evenly_between_two_measurements() -> None:
    clock = Clock([Offset(at=100.0, seconds=10.0, round_trip=2e-5), Offset(at=200.0, seconds=11.0, round_trip=4e-5)])
    assert clock(90.0) == 100.0
    assert clock(139.5) == pytest.approx(150.0, abs=0.01)
    assert clock.error == 2e-5


def test_another_machine_that_was_booted_long_ago_changes_nothing() -> None:
    near, far = Clock([Offset(50.0, 0.0, 1e-5)]), Clock([Offset(50.0, -1000.0, 1e-5)])
    spans = [60.0, 60.5, 61.25]
    assert [far(seconds + 1000.0) for seconds in spans] == [near(seconds) for seconds in spans]


@pytest.mark.parametrize("hello", [{"token": "other", "rank": 1}, {"rank": 1}, {"token": 7, "rank": 1}, {}])
def test_a_stranger_without_the_token_is_sent_away(hello: dict) -> None:
    host = Host(FoundWorld(0, 2, "torchrun"), [], None, 5.0)
    ours, theirs = socket.socketpair()
    line, stranger = Line(ours, 1.0), Line(theirs, 1.0)
    stranger.send("hello", pid=1, versions={}, words=[], **hello)
    assert not host._welcomed(line, "token")
    assert not line.open
    assert host.guests == {}


@pytest.mark.parametrize("rank", [0, 2, -1, "1", None])
def test_nobody_is_a_rank_that_there_is_not(rank: object) -> None:
    host = Host(FoundWorld(0, 2, "torchrun"), [], None, 5.0)
    ours, theirs = socket.socketpair()
    line, stranger = Line(ours, 1.0), Line(theirs, 1.0)
    stranger.send("hello", token="token", pid=1, versions={}, words=[], rank=rank)
    assert not host._welcomed(line, "token")


def test_another_version_on_a_machine_is_named() -> None:
    with pytest.raises(ConfigError, match=r"rank 1 on nodeb has torch 2\.12\.0, and rank 0 has 2\.13\.0"):
        check_same("rank 1 on nodeb", {"torch": "2.12.0"}, {"torch": "2.13.0"})
