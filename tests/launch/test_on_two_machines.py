"""Two machines and the cable between them: one run, one folder, and an end within the deadline without the cable."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipezoo.results.run_dir import METRICS, read_result
from tests.support.two_machines import PORT, Machine, TwoMachines

SMALL = ("model=multi_mlp", "model.d_hid=16", "split=modules", "stages=2", "microbatches=2", "hydra.run.dir=run")
STEP_TIMEOUT = 2.0
DEADLINES = (f"launch.step_timeout={STEP_TIMEOUT:g}", "launch.first_step_timeout=60")


def started_by_hand(
    machines: TwoMachines, folder: Path, *words: str, shared: bool
) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    """A process on each machine that finds torchrun's variables, and no torchrun: half of the processes."""
    theirs = folder.with_name(f"{folder.name}-of-b")
    for path in (folder, theirs):
        path.mkdir()
    command = [sys.executable, "-m", "pipezoo", *SMALL, *words]
    found = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": machines.a.address, "MASTER_PORT": str(PORT)}
    environment = {**machines.environment, **found}
    return (
        machines.a.start(command, folder, {**environment, "RANK": "0"}),
        machines.b.start(command, folder, {**environment, "RANK": "1"}, None if shared else theirs),
    )


def ended(command: subprocess.Popen[str], timeout: float = 90.0) -> tuple[int, str, str]:
    out, err = command.communicate(timeout=timeout)
    return command.returncode, out, err


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.timeout(180)
def test_two_machines_without_a_shared_folder_are_one_run(machines: TwoMachines, tmp_path: Path) -> None:
    a, b = started_by_hand(machines, tmp_path / "work", "steps=2", shared=False)
    (code, out, err), (other_code, *other) = ended(a), ended(b)

    assert (code, other_code) == (0, 0), err
    assert out.count("verified  exact") == 1
    assert other == ["", ""]
    assert "2 processes of torchrun's world" in out
    assert read_result(tmp_path / "work" / "run")["num_ranks"] == 2
    assert files(tmp_path / "work-of-b") == []
    assert machines.empty_after(5.0) < 5.0


@pytest.mark.timeout(180)
def test_two_machines_that_share_a_folder_keep_checkpoints_in_it(machines: TwoMachines, tmp_path: Path) -> None:
    a, b = started_by_hand(machines, tmp_path / "work", "steps=2", "checkpoint.every=2", shared=True)
    (code, out, err), (other_code, *other) = ended(a), ended(b)

    assert (code, other_code) == (0, 0), err
    assert out.count("verified  exact") == 1
    assert other == ["", ""]
    parts = [name for name in files(tmp_path / "work" / "run") if name.startswith("checkpoints/")]
    assert len(parts) >= 2, parts
    assert machines.empty_after(5.0) < 5.0


@pytest.mark.timeout(180)
def test_a_machine_that_loses_its_cable_ends_by_itself(machines: TwoMachines, tmp_path: Path) -> None:
    a, _ = machines.torchrun(["-m", "pipezoo", *SMALL, "steps=1000000", *DEADLINES], tmp_path / "work")
    metrics = tmp_path / "work" / "run" / METRICS
    wait_for_steps(metrics, a)

    machines.pull_the_cable()
    cut = time.monotonic()
    gone = {machine.host: seconds_until_gone(machine, cut) for machine in (machines.a, machines.b)}
    code, _, err = ended(a)

    result = read_result(tmp_path / "work" / "run")
    assert result["exit_code"] in (4, 124), err
    assert "rank 1 on nodeb" in result["error"]  # its line is gone, or it is the one that is not heard of
    assert code == 1  # torchrun's own, whatever the run's is
    assert gone["nodea"] < STEP_TIMEOUT + 5.0, gone
    assert gone["nodeb"] < STEP_TIMEOUT + 10.0, gone


def seconds_until_gone(machine: Machine, since: float) -> float:
    """Until no process of the run is left. torchrun's own on the lonely machine waits minutes for its store."""
    while any("torch.distributed.run" not in words for words in machine.processes().values()):
        assert time.monotonic() - since < 60.0, machine.processes()
        time.sleep(0.05)
    return time.monotonic() - since


def wait_for_steps(metrics: Path, command: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 90.0
    while not metrics.exists() or metrics.stat().st_size == 0:
        assert command.poll() is None, command.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
