"""A folder is one process's own until that is gone."""

from __future__ import annotations

import subprocess
import sys

from pipezoo.cli.folder_lock import held, hold

HOLDS = """
import time
from pathlib import Path
from pipezoo.cli.folder_lock import hold
print(hold(Path(".")) is not None, flush=True)
time.sleep(60)
"""


def test_a_folder_is_held_by_one_until_it_lets_go(tmp_path):
    with held(tmp_path) as first, held(tmp_path) as second:
        assert (first, second) == (True, False)
    with held(tmp_path) as third:
        assert third


def test_a_process_that_is_killed_holds_nothing(tmp_path, environment, no_process_left):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "True\n"
    assert hold(tmp_path) is None
    other.kill()
    assert hold(tmp_path)
    other.communicate()
