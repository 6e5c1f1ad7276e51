"""``import pipezoo``: what it offers, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import pipezoo as pz
from tests.conftest import REPOSITORY


def in_a_fresh_interpreter(code):
    """What ``code`` prints as JSON, in a process that has imported nothing."""
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return json.loads(ended.stdout)


def test_importing_it_imports_nothing_else_and_changes_no_signal_handler():
    changed, new = in_a_fresh_interpreter(
        "import json, signal, sys, importlib\n"
        "def handlers(): return [str(signal.getsignal(number)) for number in signal.valid_signals()]\n"
        "before, known = handlers(), {*sys.modules}\n"
        "import pipezoo\n"
        "print(json.dumps([before != handlers(), sorted({*sys.modules} - known)]))"
    )

    assert not changed
    assert {*new} <= {"pipezoo", "__future__"}


def test_a_simulation_imports_no_torch_and_no_hydra():
    large = in_a_fresh_interpreter(
        "import json, sys\n"
        "import pipezoo as pz\n"
        "pz.simulate(pz.schedules.zbv(4, 8))._repr_svg_()\n"
        "print(json.dumps([name for name in ('torch', 'hydra', 'omegaconf') if name in sys.modules]))"
    )

    assert large == []


def test_every_name_is_there():
    assert {name for name in pz.__all__ if getattr(pz, name) is None} == set()
    assert {*pz.__all__, "__version__"} == {*dir(pz)}


def test_the_version_is_that_of_the_project():
    assert f'version = "{pz.__version__}"' in (REPOSITORY / "pyproject.toml").read_text()


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pipezoo' has no attribute 'trian'"):
        _ = pz.trian


def test_types_are_for_everybody():
    assert (REPOSITORY / "pipezoo" / "py.typed").is_file()
