"""What stages say of the values that they hand to later ones."""

from __future__ import annotations

from collections import namedtuple
from typing import ClassVar

from pipezoo.skips import Skip, WithSkips, arguments, run_stages, taken


class Encoder:
    def __call__(self, x: float) -> WithSkips:
        return WithSkips(x + 1, {"h": 10 * x})


class Decoder:
    takes: ClassVar[dict] = {"h": (0, "h")}  # a plain pair does, too

    def __call__(self, x: float, *, h: float) -> float:
        return x + h


def test_a_stage_gets_what_an_earlier_one_named_for_it() -> None:
    assert run_stages([Encoder(), lambda x: 2 * x, Decoder()], (3,)) == 2 * 4 + 30


def test_what_a_stage_takes_is_none_where_it_says_nothing() -> None:
    assert taken(Decoder()) == {"h": Skip(0, "h")}
    assert taken(Encoder()) == {}


def test_only_a_plain_tuple_is_spread_over_the_arguments_of_the_next_stage() -> None:
    point = namedtuple("point", "x y")(1, 2)
    assert arguments((1, 2)) == (1, 2)
    assert arguments(point) == (point,)
    assert arguments([1, 2]) == ([1, 2],)
    assert arguments({"x": 1}) == ({"x": 1},)
