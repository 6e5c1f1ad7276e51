"""A folder is one process's own until that is gone."""

from __future__ import annotations

import subprocess
import sys

from pipezoo.cli.folder_lock import lock_folder, locked

HOLDS = """
import time
from pathlib import Path
from pipezoo.cli.folder_lock import lock_folder
print(lock_folder(Path(".")) is not None, flush=True)
time.sleep(60)
"""


def test_a_folder_is_held_by_one_until_it_lets_go(tmp_path):
    with locked(tmp_path) as first, locked(tmp_path) as second:
        assert (first, second) == (True, False)
    with locked(tmp_path) as third:
        assert third


def test_a_process_that_is_killed_holds_nothing(tmp_path, environment, no_process_left):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "True\n"
    assert lock_folder(tmp_path) is None
    other.kill()
    assert lock_folder(tmp_path)
    other.communicate()
