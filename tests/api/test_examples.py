"""The examples in docstrings and in ``docs/python.md`` run, and print what they show."""

from __future__ import annotations

import doctest
import importlib
import re

import pytest

from tests.conftest import REPOSITORY

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = ["simulate", "plan", "train", "run", "compare"]


def run(test):
    """Run a doctest, and return what it reports; "" where all is as shown."""
    told: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=told.append)
    return "".join(told)


@pytest.mark.parametrize("name", MODULES)
def test_the_example_of_a_docstring_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"pipezoo.api.{name}")
    tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]

    assert tests
    assert "".join(map(run, tests)) == ""


def test_every_function_that_pipezoo_offers_has_an_example():
    import pipezoo as pz

    functions = [getattr(pz, name) for name in ("simulate", "plan", "train", "run", "compare")]
    assert [function.__name__ for function in functions if ">>> " not in function.__doc__] == []


@pytest.mark.timeout(240)
def test_the_guide_prints_what_it_shows(tmp_path, monkeypatch, no_process_left):
    monkeypatch.chdir(tmp_path)
    text = re.sub(r"^```.*$", "", (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    test = doctest.DocTestParser().get_doctest(text, {"__name__": "guide"}, "docs/python.md", "docs/python.md", 0)

    assert len(test.examples) > 20
    assert run(test) == ""
