"""Ctrl-C and SIGTERM end a command in one line, whenever they come; who only imports the package keeps its handlers."""

from __future__ import annotations

import signal
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


@pytest.mark.parametrize(("number", "code", "line"), [(2, 130, "interrupted"), (15, 143, "interrupted by SIGTERM")])
def test_where_nothing_has_begun_a_command_ends_at_once_whoever_catches_exceptions(number, code, line):
    ended = python(
        "signals.catch_signals(); signals.clear_away_with(lambda: print('cleared', flush=True))",
        "try:",
        f"    os.kill(os.getpid(), {number})",
        "    time.sleep(5)",
        "except BaseException: pass",
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "cleared\n", f"{line}\n")


@pytest.mark.parametrize(
    "dropped",
    [
        "os.register_at_fork(before=kill, after_in_parent=lambda: 0); os.fork() or os._exit(0)",
        "os.register_at_fork(after_in_parent=kill); os.fork() or os._exit(0)",
        "type('Finalized', (), {'__del__': lambda self: kill()})()",
        "kept = type('Kept', (), {})(); ref = weakref.ref(kept, lambda found: kill()); del kept",
    ],
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_that_python_drops_comes_again(dropped, number, code):
    ended = python(
        f"def kill(): os.kill(os.getpid(), {int(number)}); time.sleep(0)",
        "signals.catch_signals(); signals.begin()",
        "try:",
        f"    {dropped}",
        "    time.sleep(5)",
        "except KeyboardInterrupt as error:",
        "    sys.exit(signals.interrupted(error)[0])",
    )
    assert (ended.returncode, ended.stderr) == (code, "")


def test_an_interrupt_that_an_import_catches_is_raised_at_the_next_look():
    ended = python(
        "signals.catch_signals(); signals.begin()",
        "try: os.kill(os.getpid(), 15); time.sleep(1)",
        "except BaseException: pass",
        "try: signals.check()",
        "except signals.Terminated: print('here')",
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "here\n", "")


def test_signals_wait_while_a_process_is_forked_and_reach_its_child_afterwards():
    ended = python(
        "from pipezoo.supervisor.processes import let_signals_come, signals_held",
        "signals.catch_signals(); signals.begin()",
        "try:",
        "    with signals_held():",
        "        child = os.fork()",
        "        if not child:",
        "            signal.signal(15, signal.SIG_DFL); let_signals_come(); time.sleep(20); os._exit(1)",
        "        os.kill(os.getpid(), 2); time.sleep(0.1); print('held', flush=True)",
        "except KeyboardInterrupt:",
        "    os.kill(child, 15); print(os.waitpid(child, 0)[1])",
    )
    assert (ended.stdout, ended.stderr) == ("held\n15\n", "")


def python(*lines: str) -> subprocess.CompletedProcess[str]:
    """A process that runs ``lines``."""
    code = "\n".join(["import os, signal, sys, time, weakref", "from pipezoo.cli import signals", *lines])
    before = "import signal; signal.signal(2, signal.default_int_handler)\n"
    return subprocess.run([sys.executable, "-c", before + code], capture_output=True, text=True, timeout=60)
