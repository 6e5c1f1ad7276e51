"""The simulated tables of docs/how-to-choose.md are what the command under them prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import choose

DOC = (Path(__file__).resolve().parent.parent / "docs" / "how-to-choose.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["bubbles", "messages", "uneven", "split"])
def test_a_table_is_what_its_command_prints(name, capsys):
    choose.TABLES[name]()
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [line for line in printed if line not in DOC.splitlines()] == []
    assert f"`python -m benchmarks.choose tables {name}`" in DOC


@pytest.mark.parametrize("name", choose.PICTURES)
def test_every_picture_is_shown(name):
    assert f"(pictures/{name.replace('_', '-')}.svg)" in DOC


@pytest.mark.parametrize("name", ["drawn", "bubble_over_m", "step_over_p2p"])
def test_a_picture_is_what_the_command_draws(name):
    file = Path(__file__).resolve().parent.parent / "docs" / "pictures" / f"{name.replace('_', '-')}.svg"
    assert file.read_text(encoding="utf-8") == choose.PICTURES[name]()
