from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipezoo.results.sanitize import linked, printable


@pytest.mark.parametrize(
    ("looks", "term", "shown"),
    [
        (True, "xterm", "\x1b]8;;file:///runs/a%20b.html\x1b\\a b.html\x1b]8;;\x1b\\"),
        (True, "dumb", "a b.html"),
        (False, "xterm", "a b.html"),
    ],
    ids=["a terminal", "a dumb one", "a pipe"],
)
def test_a_file_is_a_link_where_a_person_can_follow_it(monkeypatch, looks, term, shown):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: looks)
    monkeypatch.setenv("TERM", term)
    assert linked("a b.html", Path("/runs/a b.html")) == shown


def test_characters_that_act_on_a_terminal_are_spelled_out():
    assert printable("\x1b[31mred\u202e") == "\\x1b[31mred\\u202e"
