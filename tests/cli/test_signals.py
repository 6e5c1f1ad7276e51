"""Ctrl-C leaves no traceback, as early as it comes; who only imports the package keeps Python's own handler."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # Python leaves it out where the tests run in the background
sys.argv = {argv}
import pipezoo
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize("argv", [["-m"], ["/usr/bin/pipezoo", "stages=2"]])
def test_before_anything_is_imported_a_command_just_ends(argv, environment, tmp_path):
    command = [sys.executable, "-c", CODE.format(argv=argv)]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "")


@pytest.mark.parametrize("argv", [["-c"], ["train.py"], [""], []])
def test_in_somebody_elses_program_it_is_an_exception(argv, environment, tmp_path):
    command = [sys.executable, "-c", CODE.format(argv=argv)]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1] == "KeyboardInterrupt"
