"""Errors as data: a refused argument says its name, its value, why, and what would do."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from pipezoo.errors import MISSING, ArgumentError, ConfigError

FILE = Path("a b.csv")
CASES = [
    (ArgumentError("splits", 9, "many", (2, 4)), "splits=9: many; valid: 2, 4", "splits=9: many; valid: 2, 4"),
    (ArgumentError("splits", None, "none", ">= 1"), "splits=None: none; valid: >= 1", "splits=null: none; valid: >= 1"),
    (ArgumentError("on", True, "no"), "on=True: no", "on=true: no"),
    (ArgumentError("d", "6", "is text"), "d='6': is text", "d='6': is text"),
    (ArgumentError("dp", (2, 4), "no"), "dp=(2, 4): no", "dp=[2,4]: no"),
    (ArgumentError("file", FILE, "is\ntwo\tlines"), "file=a b.csv: is two lines", "file=a b.csv: is two lines"),
    (ArgumentError("stages[2].F", MISSING, "is missing"), "stages[2].F: is missing", "stages[2].F: is missing"),
    (ArgumentError("latency", -1, "no").inside("p2p"), "p2p.latency=-1: no", "p2p.latency=-1: no"),
]


@pytest.mark.parametrize(("error", "in_python", "as_typed"), CASES)
def test_an_argument_error_is_one_line_in_python_and_one_line_as_typed(error, in_python, as_typed):
    assert str(error) == in_python
    assert error.at(f"model.{error.argument}") == f"model.{as_typed}"


def test_an_argument_error_travels_to_another_process_as_data():
    sent = pickle.loads(pickle.dumps(ArgumentError("splits", 9, "too many", (2, 4))))
    assert (sent.name, sent.value, sent.why, sent.valid) == ("splits", 9, "too many", (2, 4))
    error = pickle.loads(pickle.dumps(ConfigError("model.splits=9: too many", sent, "too many")))
    assert (error.argument.name, error.why, str(error)) == ("splits", "too many", "model.splits=9: too many")
