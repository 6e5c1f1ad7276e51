"""Ctrl-C and SIGTERM end a command in one line, whenever they come; who only imports the package keeps its handlers."""

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


@pytest.mark.parametrize("argv", [["-c"], ["train.py"], [""], [], ["-m"], ["/usr/bin/pipezoo"]])
def test_in_somebody_elses_program_it_is_an_exception(argv, environment, tmp_path):
    command = [sys.executable, "-c", CODE.format(argv=argv)]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1] == "KeyboardInterrupt"
