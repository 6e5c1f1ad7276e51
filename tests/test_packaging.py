"""What is built from this repository, and whether it works from any folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

CONF = sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "conf").rglob("*.yaml"))
CODE = sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "pipezoo").rglob("*.py"))


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env={**known, **environment}, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of what is in the repository."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed")
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    source.mkdir()
    for name in ("conf", "pipezoo"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    built = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", folder, source, cwd=folder)
    if built.returncode and ("hatchling" in built.stderr or "Could not find a version" in built.stderr):
        pytest.skip("the build backend cannot be fetched here")
    assert built.returncode == 0, built.stderr
    return next(folder.glob("pipezoo-*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_all_of_the_package_and_of_conf(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"pipezoo/{name}" for name in CONF} <= names
    assert set(CODE) <= names
    assert "pipezoo/py.typed" in names
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"pipezoo"}
    assert any(name.endswith("entry_points.txt") for name in names)


@pytest.mark.slow
def test_an_installed_wheel_works_from_any_folder(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    (tmp_path / "anywhere").mkdir()
    where = run(
        sys.executable,
        "-c",
        "from pipezoo.experiment.registry import conf_dir; print(conf_dir())",
        cwd=tmp_path / "anywhere",
        PYTHONPATH=str(tmp_path / "site"),
    )
    assert Path(where.stdout.strip()) == tmp_path / "site" / "pipezoo" / "conf"
    words = ("-m", "pipezoo", "model=multi_mlp", "model.d_hid=8", "stages=1", "steps=1")
    ended = run(sys.executable, *words, cwd=tmp_path / "anywhere", PYTHONPATH=str(tmp_path / "site"))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(list(tmp_path.glob("anywhere/outputs/*/*/result.json"))) == 1


def test_a_clone_works_from_any_folder_without_being_installed(tmp_path):
    ended = run(sys.executable, "-m", "pipezoo", "--cfg", "job", cwd=tmp_path, PYTHONPATH=str(REPOSITORY))
    assert ended.returncode == 0
    assert "task: train" in ended.stdout


def test_the_console_script_finds_packages_of_the_working_folder(tmp_path):
    (tmp_path / "their_net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        raise ValueError('found')\n"
    )
    (tmp_path / "theirs" / "model").mkdir(parents=True)
    (tmp_path / "theirs" / "model" / "mine.yaml").write_text("_target_: their_net.Net\n")
    script = tmp_path / "bin" / "pipezoo"
    script.parent.mkdir()
    script.write_text("import sys\nfrom pipezoo.cli.main import main\nsys.exit(main())\n")  # what pip writes
    words = ("--config-dir", "theirs", "model=mine", "data.d_hid=4", "split=modules")
    ended = run(sys.executable, script, *words, cwd=tmp_path, PYTHONPATH=str(REPOSITORY))
    assert (ended.returncode, ended.stderr) == (2, "error: model=mine: found\n")


def test_outputs_lets_configs_and_results_be_committed(tmp_path):
    job = tmp_path / "outputs" / "2026-11-23" / "01-10-15-4f2a"
    (job / ".hydra").mkdir(parents=True)
    shutil.copy(REPOSITORY / "outputs" / ".gitignore", tmp_path / "outputs")
    for name in (
        ".hydra/config.yaml",
        ".hydra/overrides.yaml",
        "config.yaml",
        "result.json",
        "metrics.jsonl",
        "report.html",
    ):
        (job / name).write_text("x")
    if run("git", "init", "-q", cwd=tmp_path).returncode:
        pytest.skip("git is not installed")
    run("git", "add", "outputs", cwd=tmp_path)
    listed = run("git", "ls-files", cwd=tmp_path).stdout.split()
    kept = {path.removeprefix("outputs/2026-11-23/01-10-15-4f2a/") for path in listed}
    assert kept == {"outputs/.gitignore", ".hydra/config.yaml", ".hydra/overrides.yaml", "config.yaml", "result.json"}
