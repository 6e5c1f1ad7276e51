from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pipezoo
from pipezoo.results import provenance as module
from pipezoo.results.provenance import provenance
from pipezoo.results.run_dir import read_result

ME = ("-c", "user.name=a", "-c", "user.email=a@b.example")


def git(*words: str) -> str:
    return subprocess.run(["git", *ME, *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    (tmp_path / "train.yaml").write_text("stages: 2\n")
    git("add", "train.yaml")
    git("commit", "-qm", "a run")
    return tmp_path


def test_the_commit_of_the_working_folder_is_told_and_that_it_is_clean(repository: Path) -> None:
    (repository / "outputs").mkdir()
    (repository / "outputs" / "result.json").write_text("{}")  # what git does not know makes nothing dirty
    assert provenance()["git"] == {"commit": git("rev-parse", "HEAD"), "dirty": False}


@pytest.mark.parametrize("staged", [True, False])
def test_a_changed_file_makes_it_dirty(repository: Path, staged: bool) -> None:
    (repository / "train.yaml").write_text("stages: 4\n")
    if staged:
        git("add", "train.yaml")
    assert provenance()["git"] == {"commit": git("rev-parse", "HEAD"), "dirty": True}


def test_a_subfolder_belongs_to_its_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "below").mkdir()
    monkeypatch.chdir(repository / "below")
    assert provenance()["git"] == {"commit": git("rev-parse", "HEAD"), "dirty": False}


def test_a_repository_that_names_a_monitor_does_not_get_it_started(repository: Path) -> None:
    git("config", "core.fsmonitor", f"touch {repository}/started; true")
    assert provenance()["git"]["dirty"] is False
    assert not (repository / "started").exists()


def test_without_a_commit_a_repository_or_git_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance()["git"] is None
    git("init", "-q")
    assert provenance()["git"] is None
    monkeypatch.setenv("PATH", "")
    assert provenance()["git"] is None


def test_a_git_that_does_not_answer_is_not_waited_for(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "git").write_text("#!/bin/sh\nsleep 30\n")
    (repository / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{repository}:/usr/bin:/bin")
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    assert provenance()["git"] is None


def test_host_processor_and_versions_are_told_as_plain_values() -> None:
    told = json.loads(json.dumps(provenance()))
    assert told["host"]
    assert told["cpu"]["name"]
    assert told["cpu"]["cores"] >= 1
    assert told["versions"]["pipezoo"] == pipezoo.__version__
    assert told["versions"]["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")


def test_gpus_are_read_from_the_driver_without_starting_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA H100\nIRQ: 1\n")
    monkeypatch.setattr(module, "GPUS", tmp_path)
    assert provenance()["gpus"] == ["NVIDIA H100"]
    monkeypatch.setattr(module, "GPUS", tmp_path / "none")
    assert provenance()["gpus"] == []


def test_a_run_tells_the_commit_of_its_beginning(tmp_path, monkeypatch):
    from tests.support.experiments import experiment, run

    commits = iter(("begun", "changed while it ran"))
    told = "pipezoo.tasks.train_result.provenance"
    monkeypatch.setattr(told, lambda: {"git": {"commit": next(commits), "dirty": False}})
    run(experiment(("pipezoo.models.mlp.MultiMLP", {"d_hid": 8, "n_layers": 2})), tmp_path)
    assert read_result(tmp_path)["git"]["commit"] == "begun"
