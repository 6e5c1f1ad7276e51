"""File systems without room or inodes, users without processes: the promised code, one line, a result that ends.

Some of it takes root: a tmpfs of its own, another user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipezoo.results.run_dir import read_result
from tests.support.command import command


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """``small_disk("size=16k")`` is a folder on a file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        words = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("nothing may be mounted here")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


@pytest.mark.parametrize("options", ["size=16k", "size=48k", "nr_inodes=4", "nr_inodes=8", "nr_inodes=12"])
def test_a_disk_without_room_or_inodes_is_code_6_and_no_result_says_running(
    small_disk: Callable[[str], Path], options: str
) -> None:
    disk = small_disk(options)
    run = command(disk.parent, "stages=2", "checkpoint.every=1", f"hydra.run.dir={disk}/run").wait()
    run.gone_after(1.0)
    assert (run.code, len(run.err.splitlines())) == (6, 1), run.err
    assert run.err.startswith("error: ")
    assert "No space left on device" in run.err
    result = read_result(disk / "run")
    assert (result["status"], result["exit_code"]) == ("failed", 6)


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="only root may be somebody else")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
@pytest.mark.parametrize("number", [3])
def test_a_user_without_processes_gets_one_line_and_code_4(
    tmp_path: Path, environment: dict[str, str], no_process_left: None, number: int
) -> None:
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    somebody = ["setpriv", "--reuid=61234", "--regid=61234", "--clear-groups"]  # whose limit counts, as root's does not
    somebody += [f"--{kind}-caps=-all,+dac_read_search" for kind in ("inh", "ambient")]
    words = [
        "model=multi_mlp",
        "model.d_hid=8",
        "split=modules",
        "stages=2",
        "steps=2",
        "verify=false",
        "hydra.run.dir=here",
    ]
    ended = subprocess.run(
        [*somebody, "prlimit", f"--nproc={number}", sys.executable, "-m", "pipezoo", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    if "Operation not permitted" in ended.stderr:
        pytest.skip("not even root may be somebody else here")
    assert ended.returncode == 4, ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert "Resource temporarily unavailable" in ended.stderr
    assert read_result(tmp_path / "here")["exit_code"] == 4
