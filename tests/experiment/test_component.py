"""A part of an experiment: its arguments are checked against what it takes, its errors spelled as the user spells."""

from __future__ import annotations

import functools
import pickle

import pytest
from torch import nn

from pipezoo.errors import ArgumentError, ConfigError, OutputError, ScheduleError, show
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.component import Component

HERE = Allowlist((__name__.partition(".")[0],))


def take(width: int, num_ranks: int = 1, *, scale: float = 1.0, pair: tuple[int, int] = (0, 0), inner: object = None):
    if width > 8:
        raise ValueError(f"width={width}: must be an int in 1..8")
    if num_ranks > 4:
        raise ValueError(f"num_ranks={num_ranks}: too many; valid: 1..4")
    if width == 7:
        raise ValueError("seven\nis\tnot liked")
    if width == 6:
        raise KeyError("six")
    if width == 5:
        raise OutputError("no room")
    if width == 4:
        raise ScheduleError("width=4: row 1", argument=ArgumentError("width", 4, "row 1, column 2"))
    if scale < 0:
        raise ValueError(f"Invalid scale: {scale}")
    return width, num_ranks, scale, pair, inner


def part(given: tuple[str, ...] = ("num_ranks",), **arguments: object) -> Component:
    return Component("group", "mine", f"{__name__}.take", arguments, given=given, trust=HERE)


def test_a_part_is_called_with_the_arguments_of_the_config_and_those_of_the_caller():
    assert part(width=2, scale=0.5)(num_ranks=3) == (2, 3, 0.5, (0, 0), None)


def test_a_list_becomes_the_tuple_that_is_asked_for():
    assert part(width=2, pair=[1, 2])()[3] == (1, 2)


def test_a_part_in_a_part_is_called_first():
    assert part(width=2, inner={"_target_": f"{__name__}.take", "width": 3})()[4] == (3, 1, 1.0, (0, 0), None)


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        ({"width": 9}, {}, "group.width=9: must be an int in 1..8"),
        ({"width": 2}, {"num_ranks": 5}, "ranks=5: too many; valid: 1..4"),
        ({"width": 4}, {}, "group.width=4: row 1, column 2"),
        ({"width": 7}, {}, "group=mine: seven is not liked"),
        ({"width": 2, "scale": -1}, {}, "group.scale=-1: Invalid scale: -1"),
        ({"width": "wide"}, {}, "group.width=wide: must be an int"),
        ({"width": "2"}, {}, "group.width='2': must be an int"),
        ({"width": 2, "pair": [1]}, {}, "group.pair=[1]: must be a list of 2: [an int, an int]"),
        ({"widht": 2}, {}, "group.widht=2: unknown key (did you mean width?); valid: inner, pair, scale, width"),
        ({"width": 2, "num_ranks": 3}, {}, "group.num_ranks=3: unknown key; valid: inner, pair, scale, width"),
        ({}, {}, "group.width: is missing, and group=mine needs it"),
    ],
)
def test_what_a_part_refuses_is_spelled_as_the_user_spells_it(arguments, given, message):
    with pytest.raises(ConfigError) as error:
        part(**arguments)(**given)
    assert str(error.value) == message


def test_an_error_that_nobody_foresaw_is_one_line_with_its_place():
    with pytest.raises(ConfigError, match=r"^group=mine: KeyError: 'six' \(test_component.py:\d+; debug=true shows"):
        part(width=6)()


def test_an_error_with_an_exit_code_of_its_own_passes():
    with pytest.raises(OutputError):
        part(width=5)()


def test_an_argument_that_repeats_another_key_is_blamed_on_that_key():
    repeated = Component(
        "group", "mine", f"{__name__}.take", {"width": 9}, trust=HERE, sources={"width": "model.d_hid"}
    )
    with pytest.raises(ConfigError, match=r"^model.d_hid=9: must be an int in 1..8$"):
        repeated()


def test_a_part_travels_to_another_process():
    original = part(width=2)
    original.check()
    assert pickle.loads(pickle.dumps(original))() == original()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (3, "3"),
        ("a", "a"),
        ("6", "'6'"),
        ("", "''"),
        ("true", "'true'"),
        ([1, "a"], "[1,a]"),
    ],
)
def test_values_are_shown_as_they_are_typed(value, text):
    assert show(value) == text


def make_model(width: int = 2):
    return nn.Linear(width, width)


def make_nothing_of_the_kind():
    return {"no": "model"}


class Family:
    @classmethod
    def from_sizes(cls, width: int = 2, **more: int):
        return nn.Linear(width, width)


class Wrapped:
    """As a configuration class of a library: its constructor takes more than the one that it wraps says."""

    def __init__(self, width: int = 2) -> None:
        self.width = width

    def _init(self, *args, **kwargs):
        self.more = kwargs.pop("more", None)
        Wrapped._inner(self, *args, **kwargs)


Wrapped._inner = Wrapped.__init__
Wrapped.__init__ = functools.wraps(Wrapped._inner)(Wrapped._init)
MODEL = "torch.nn.modules.module.Module"


def model(target: str, **arguments: object) -> Component:
    return Component("model", "mine", f"{__name__}.{target}", arguments, role=MODEL, trust=HERE)


@pytest.mark.parametrize("target", ["make_model", "Family.from_sizes"])
def test_a_factory_is_judged_by_what_it_makes(target):
    assert model(target, width=3)().in_features == 3


def test_what_makes_no_model_is_refused():
    line = f"model._target_={__name__}.make_nothing_of_the_kind: made a builtins.dict, which is no {MODEL}"
    with pytest.raises(ConfigError) as error:
        model("make_nothing_of_the_kind")()
    assert str(error.value) == line


def test_a_class_that_is_no_model_is_refused_before_it_is_called():
    with pytest.raises(ConfigError, match="is not a subclass of"):
        model("Family").check()


def from_folder(path: str) -> None:
    raise OSError(f"Repo id must use alphanumeric chars: {path}")


@pytest.mark.parametrize("path", ["./nowhere", "../nowhere/a.bin", "/nowhere", "~/nowhere"])
def test_a_path_that_leads_nowhere_is_said_to(path):
    with pytest.raises(ConfigError) as error:
        model("from_folder", path=path)()
    assert str(error.value) == f"model.path={path}: no such file or folder"


@pytest.mark.parametrize("path", ["their/name", "."])
def test_any_other_text_is_left_to_the_library(path):
    with pytest.raises(ConfigError, match=r"^model.path=.*: Repo id must"):
        model("from_folder", path=path)()


def test_a_constructor_that_takes_more_than_the_one_it_wraps_is_given_more():
    made = Component("group", "mine", f"{__name__}.Wrapped", {"width": 3, "more": 4}, trust=HERE)()
    assert (made.width, made.more) == (3, 4)
