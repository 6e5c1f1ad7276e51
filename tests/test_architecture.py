"""The rules of the house that import-linter (`lint-imports`, its contracts in pyproject.toml) does not know."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "pipezoo"
FILES = sorted(PACKAGE.rglob("*.py"))
PRIVATE_TORCH = (  # no other files
    "no_compiler.py",
    *(f"runtime/{name}.py" for name in ("torch_runtime", "torch_replicas", "autograd_engine", "trees")),
)


def offenders(find) -> list[str]:
    """``file:line: what`` for everything that ``find`` finds in a file of the package, given its tree."""
    found = []
    for path in FILES:
        name = path.relative_to(PACKAGE).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [f"{name}:{node.lineno}: {what}" for node, what in find(tree) if name not in PRIVATE_TORCH]
    return found


def torchs_underscored_names(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from ((node, name) for name in names if name.startswith("_"))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            name = ast.unparse(node)
            if name.startswith(("torch.", "dist.", "nn.")):
                yield node, name


def test_torchs_underscored_names_live_in_few_files():
    assert offenders(torchs_underscored_names) == []


def test_an_underscored_name_of_torchs_is_found():
    tree = ast.parse(
        "from torch._dynamo import x\nimport torch.nn as nn\nnn.modules._functions\nself._own\ndist.__all__"
    )
    assert [what for _, what in torchs_underscored_names(tree)] == ["_dynamo", "nn.modules._functions"]


def test_every_import_is_absolute():
    def relative(tree: ast.AST):
        yield from ((node, "relative") for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level)

    assert offenders(relative) == []


def test_no_folder_of_leftovers():
    forbidden = {"utils", "common", "core", "helpers", "misc"}
    assert [path for path in FILES if forbidden & {*path.relative_to(PACKAGE).with_suffix("").parts}] == []


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import pipezoo", ("torch", "hydra", "numpy")),
        ("import pipezoo.__main__, pipezoo.rerun.__main__", ("torch", "hydra", "omegaconf", "numpy")),
        ("import pipezoo.cli.rerun", ("torch", "hydra", "omegaconf", "numpy")),
        ("import pipezoo.config.compose", ("torch",)),
        ("import pipezoo.results.run_dir, pipezoo.report.ascii, pipezoo.results.sweep_table", ("torch", "hydra")),
        ("import pipezoo.schedules.zbv, pipezoo.simulator.simulate", ("torch", "hydra")),
    ],
)
def test_what_must_start_at_once_imports_nothing_large(statement, absent):
    check = f"import sys; {statement}; print([name for name in {absent!r} if name in sys.modules])"
    assert python("-c", check) == "[]"


def test_importing_the_package_leaves_the_signals_of_a_program_alone(tmp_path):
    """Also for `python -m their_package`, whose sys.argv[0] is `-m` while its parents are imported."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("import pipezoo, pipezoo.cli.main, pipezoo.config.compose")
    (tmp_path / "theirs" / "__main__.py").write_text(
        "from signal import SIG_DFL, default_int_handler, getsignal\n"
        "print(getsignal(2) is default_int_handler, getsignal(15) == SIG_DFL)\n"
    )
    assert python("-m", "theirs", cwd=tmp_path) == "True True"


def python(*words: str, cwd: Path = PACKAGE.parent) -> str:
    """What a Python process prints."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    ended = subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=True, env=environment
    )
    return ended.stdout.strip()
