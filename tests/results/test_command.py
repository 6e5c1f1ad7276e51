"""Commands that read folders: an error is a line and an exit code, and a reader that has gone is no error."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipezoo.errors import ConfigError, OutputError
from pipezoo.results.command import exit_code_of


@pytest.mark.parametrize(("error", "code"), [(ConfigError("a=\x1b1: no"), 2), (OutputError("a=\x1b1: no"), 6)])
def test_an_error_is_one_line_on_stderr_and_its_exit_code(error, code, capsys):
    def work() -> None:
        raise error

    assert exit_code_of(work) == code
    assert tuple(capsys.readouterr()) == ("", "error: a=\\x1b1: no\n")


def test_what_nobody_foresaw_is_raised():
    with pytest.raises(ZeroDivisionError):
        exit_code_of(lambda: print(1 // 0))


def test_a_reader_that_has_gone_is_no_error():
    program = """
import sys
from pipezoo.results.command import exit_code_of
def work():
    for number in range(100_000):
        print(number, flush=True)
sys.exit(exit_code_of(work))
"""
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    writer.stdout.readline()
    writer.stdout.close()
    assert (writer.wait(), writer.stderr.read()) == (0, b"")
    writer.stderr.close()
