"""`git add outputs` takes what a rerun on another clone needs, and nothing else: built-in, CSV, planned, sweep runs."""

# ruff: noqa: E501  (a list stands on one line)
from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pipezoo.results import schedule_file
from pipezoo.results.committed import GITIGNORE
from tests.conftest import REPOSITORY
from tests.support.command import Command

TRAIN = ("model=multi_mlp", "model.d_hid=8", "split=modules", "steps=2", "verify=false", "launch=virtual")
CSV = "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "safe.directory=*")
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path) -> Path:
    """A user's own project, where pipezoo has never run."""
    (tmp_path / "here").mkdir()
    git(tmp_path / "here", "init", "-q")
    return tmp_path / "here"


def run(folder: Path, *words: str) -> Command:
    for name in ("out", "err"):
        (folder / name).unlink(missing_ok=True)
    ended = Command(folder, words).start().wait(90)
    assert ended.code == 0, ended.err
    return ended


def clone(project: Path) -> Path:
    """Commit what git takes of outputs/, and nothing beside it; what another machine gets."""
    git(project, "add", "outputs")
    git(project, "commit", "-qm", "a run")
    git(project, "clone", "-q", str(project), str(project.parent / "there"))
    return project.parent / "there"


def committed(there: Path) -> set[str]:
    return {str(path.relative_to(there / "outputs")) for path in (there / "outputs").rglob("*") if path.is_file()}


def losses(folder: Path) -> list[float]:
    return json.loads((folder / "result.json").read_text())["losses"]


OF_A_RUN = {".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "config.yaml", "result.json", "schedule.csv"}  # fmt: skip


def test_the_repository_ignores_what_a_users_project_is_told_to_ignore():
    assert (REPOSITORY / "outputs" / ".gitignore").read_text() == GITIGNORE


@pytest.mark.parametrize("kind", ["built-in", "csv", "csv, packed"])
def test_a_run_is_repeated_on_another_clone(project, kind, monkeypatch):
    (project / "mine.csv").write_text(CSV)
    order = "schedule.csv"
    if kind == "csv, packed":
        monkeypatch.setattr(schedule_file, "MOST_PLAIN", 0)
        order = "schedule.csv.gz"
    words = ("schedule=csv", "schedule.file=mine.csv") if kind != "built-in" else ("ranks=2", "microbatches=2")
    run(project, *TRAIN, *words, "hydra.run.dir=outputs/day/RUN")
    there = clone(project)
    assert committed(there) == {".gitignore", *(f"day/RUN/{name}" for name in OF_A_RUN - {"schedule.csv"} | {order})}
    for path in (there / "outputs").rglob("*"):
        assert not path.is_file() or str(project).encode() not in path.read_bytes(), path
    ended = run(there, "rerun", "outputs/day/RUN", "hydra.run.dir=outputs/again")
    assert "losses    the same in all 2 steps, bit for bit" in ended.out
    assert "order     the same" in ended.out
    if kind != "built-in":
        assert f"schedule.file=mine.csv is gone; what ran is read from outputs/day/RUN/{order}" in ended.out


def test_an_order_of_conf_is_found_in_another_clones_conf(project):
    run(project, *TRAIN, "schedule=v_shape", "hydra.run.dir=outputs/RUN")
    assert "file: ${conf_dir:}/schedule/v_shape.csv\n" in (project / "outputs/RUN/config.yaml").read_text()
    ended = run(clone(project), "rerun", "outputs/RUN", "hydra.run.dir=outputs/again")
    assert "bit for bit" in ended.out
    assert "differs" not in ended.out


def test_a_planned_run_is_repeated_from_its_own_folder_alone(project):
    words = ("task=plan", "model=multi_mlp", "model.d_hid=8", "split=modules", "ranks=2", "microbatches=4", "plan.time_limit_s=0.1", "plan.iterations=2")  # fmt: skip
    run(project, *words, "hydra.run.dir=outputs/PLAN")
    here = ("steps=2", "verify=false", "launch=virtual", "hydra.run.dir=outputs/RUN")
    run(project, "--config-dir", "outputs/PLAN/conf", "+experiment=planned", *here)
    git(project, "add", "outputs")
    assert "outputs/PLAN/conf/experiment/planned.yaml" in git(project, "diff", "--cached", "--name-only")
    git(project, "rm", "-qr", "--cached", "outputs/PLAN")
    there = clone(project.parent / "here")
    shutil.rmtree(there / "outputs" / "PLAN")  # the run alone
    ended = run(there, "rerun", "outputs/RUN", "hydra.run.dir=outputs/again")
    assert "differs   experiment=planned is not in conf/; its values are read from outputs/RUN/config.yaml" in ended.out
    assert "losses    the same in all 2 steps, bit for bit" in ended.out


def test_a_sweep_goes_on_on_another_clone_and_each_of_its_runs_is_repeated(project):
    run(project, "-m", *TRAIN, "ranks=2", "seed=1,1", "hydra.sweep.dir=outputs/SWEEP")
    there = clone(project)
    names = {f"SWEEP/{job}/{name}" for job in "01" for name in OF_A_RUN}
    assert committed(there) == {".gitignore", "SWEEP/sweep.json", "SWEEP/sweep.csv", *names}
    ended = run(there, "-m", "sweep.resume=outputs/SWEEP")
    assert ended.out.count("kept: ") == 2
    assert "bit for bit" in run(there, "rerun", "outputs/SWEEP/1", "hydra.run.dir=outputs/again").out


def test_a_users_own_model_is_repeated_where_its_code_is_committed(project):
    (project / "my_conf" / "model").mkdir(parents=True)
    (project / "my_conf" / "model" / "mine.yaml").write_text("_target_: my_net.Net\n")
    (project / "my_net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n"
        "    def __init__(self):\n        super().__init__(nn.Linear(4, 4), nn.Linear(4, 4))\n"
    )
    git(project, "add", "my_conf", "my_net.py")
    words = ("--config-dir", "my_conf", "model=mine", "data.d_hid=4", "split=modules", "stages=2", *TRAIN[3:])
    run(project, *words, "hydra.run.dir=outputs/RUN")
    there = clone(project)
    ended = Command(there, ("rerun", "outputs/RUN")).start().wait()
    assert ended.code == 2
    assert ended.err.endswith("(model=mine), which count when you name them: --config-dir my_conf\n")
    ended = run(there, "rerun", "outputs/RUN", "--config-dir", "my_conf", "hydra.run.dir=outputs/again")
    assert "losses    the same in all 2 steps, bit for bit" in ended.out


def test_a_gitignore_that_was_removed_stays_removed(project):
    run(project, "task=simulate", "ranks=2", "hydra.run.dir=outputs/1")
    (project / "outputs" / ".gitignore").unlink()
    run(project, "task=simulate", "ranks=2", "hydra.run.dir=outputs/2")
    assert not (project / "outputs" / ".gitignore").exists()
    run(project, "task=simulate", "ranks=2", "hydra.run.dir=elsewhere/1")
    assert not (project / "elsewhere" / ".gitignore").exists()


def test_a_rerun_never_runs_an_edited_file(project):
    (project / "mine.csv").write_text(CSV)
    run(project, *TRAIN, "schedule=csv", "schedule.file=mine.csv", "hydra.run.dir=r")
    (project / "mine.csv").write_text("0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n")
    ended = run(project, "rerun", "r", "hydra.run.dir=again")
    assert "differs   schedule.file=mine.csv is another order today; what ran is read from r/schedule.csv" in ended.out
    assert (project / "again" / "schedule.csv").read_text() == CSV
    ended = run(project, "rerun", "r", "schedule.file=mine.csv", "hydra.run.dir=other")
    assert "order     differs first on rank 1 at action 1: 1B0 then, 1F1 now" in ended.out


def test_a_simulation_is_compared_by_what_it_has(project):
    run(project, "task=simulate", "ranks=3", "microbatches=4", "hydra.run.dir=r")
    ended = run(project, "rerun", "r", "hydra.run.dir=again")
    assert "step      18, as then" in ended.out
    assert "bubble    makespan 0.333333" in ended.out
    assert "losses" not in ended.out
    ended = run(project, "rerun", "r", "microbatches=8", "hydra.run.dir=more")
    assert "step      18 then, 30 now" in ended.out
    assert "order     differs first on rank 0 at action " in ended.out
