"""The house has floors, and imports point down. This test draws them from the imports themselves.

floor 4   __main__, config, command/, rerun              the door: command line, Hydra, exit codes
floor 3   tasks/                                         one page a task
floor 2   runtime/, report/, planner/, simulator ...     what runs, predicts and draws
floor 1   schedules/ models/ splitters/ data/ ...        the zoo, and what was asked
floor 0   action schedule timeline cost ...              stdlib and numpy
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "pipezoo"
ZOOS = ("schedules", "models", "splitters", "data", "costs", "exports")
DOOR = {
    "pipezoo.config.compose",
    "pipezoo.cli.hydra_app",
    "pipezoo.__main__",
}  # the only files that know Hydra and OmegaConf
PRIVATE_TORCH = "pipezoo.runtime.torch_runtime"  # the only file that may name what torch underscores

FLOORS = {
    4: {"__main__", "config", "command", "rerun"},
    3: {"tasks"},
    2: {"runtime", "report", "simulator", "planner"},
    1: {"schedules", "models", "splitters", "data", "losses", "cutting", "experiment", "sizes", "parts", "exports"},
}
TORCH_USERS = {"models", "splitters", "data", "losses", "cutting", "runtime", "tasks"}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str, late: bool = False) -> frozenset[str]:
    """What a module imports when it is imported itself; ``late``: also what its functions import when they run."""
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if late else _executed(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute here"
            base = node.module or ""
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules() else base for alias in node.names}
    return frozenset(found)


def _executed(node: ast.AST):
    """The statements that run when a module is imported: not those in functions, nor those for type checkers."""
    for worker in ast.iter_child_nodes(node):
        if isinstance(worker, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(worker, ast.If) and "TYPE_CHECKING" in ast.dump(worker.test):
            continue
        yield worker
        yield from _executed(worker)


def place(module: str) -> str:
    """The file or folder of ``pipezoo/`` that a module is in: ``pipezoo.report.ascii`` is in ``report``."""
    return module.split(".")[1] if "." in module else ""


def floor(module: str) -> int:
    where = place(module)
    for number, places in FLOORS.items():
        if where in places:
            return number
    return -1 if not where else drawn_floors()[where]


@cache
def drawn_floors() -> dict[str, int]:
    """Files that no floor names: as low as what they import allows."""
    named = {name for places in FLOORS.values() for name in places}
    rest = {place(module) for module in modules()} - named - {""}
    floors = dict.fromkeys(rest, 0)
    for _ in rest:
        for name in rest:
            for module in imports(f"pipezoo.{name}"):
                if module.startswith("pipezoo."):
                    where = place(module)
                    other = floors.get(where, next((n for n, places in FLOORS.items() if where in places), 0))
                    floors[name] = max(floors[name], other)
    return floors


@cache
def reach(module: str) -> frozenset[str]:
    """All modules that importing ``module`` imports, packages on the way included."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in modules():
            waiting += imports(name)
            waiting += [".".join(name.split(".")[:size]) for size in range(1, name.count(".") + 1)]
    return frozenset(seen)


EVERY = sorted(modules())


@pytest.mark.parametrize("module", EVERY)
def test_imports_point_down(module):
    upwards = {other for other in imports(module) if other.startswith("pipezoo.") and floor(other) > floor(module)}
    assert upwards == set(), f"{module} is on floor {floor(module)}"


@pytest.mark.parametrize("module", [name for name in EVERY if place(name) in ZOOS and name.count(".") > 1])
def test_siblings_of_a_zoo_do_not_import_each_other(module):
    siblings = {other for other in imports(module, late=True) if place(other) == place(module) and other.count(".") > 1}
    shared = {"pipezoo.data.batch", "pipezoo.exports.spec"}
    assert siblings - shared - {module} <= _families(module)


def _families(module: str) -> set[str]:
    """A model may be made of another's parts; a schedule, a splitter and a source of batches stand alone."""
    return {other for other in modules() if other.startswith("pipezoo.models.")} if place(module) == "models" else set()


@pytest.mark.parametrize("module", [name for name in EVERY if place(name) not in TORCH_USERS])
def test_a_floor_that_needs_no_torch_does_not_import_it(module):
    assert {name for name in reach(module) if name.partition(".")[0] == "torch"} == set()


@pytest.mark.parametrize("module", sorted(set(EVERY) - DOOR))
def test_only_the_door_knows_hydra(module):
    known = {name.partition(".")[0] for name in imports(module, late=True)}
    assert known & {"hydra", "omegaconf"} == set()


@pytest.mark.parametrize("module", sorted(set(EVERY) - {PRIVATE_TORCH}))
def test_torchs_underscored_names_live_in_one_file(module):
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            found |= {part for part in parts if part.startswith("_")}
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            name = ast.unparse(node)
            found |= {name} if name.startswith(("torch.", "dist.", "nn.")) else set()
    assert found == set()


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import pipezoo.__main__", ("torch", "hydra", "omegaconf")),
        ("import pipezoo.cli.rerun", ("torch", "hydra", "omegaconf", "numpy")),
        ("import pipezoo.config.compose", ("torch",)),
        ("import pipezoo.results.run_dir, pipezoo.report.ascii, pipezoo.results.sweep_table", ("torch", "hydra")),
        ("import pipezoo.schedules.zbv, pipezoo.simulator.simulate", ("torch", "hydra")),
    ],
)
def test_what_must_start_at_once_imports_nothing_large(statement, absent):
    check = f"import sys; {statement}; print([name for name in {absent!r} if name in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", check], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "[]"


def test_no_folder_of_leftovers():
    forbidden = {"utils", "common", "core", "helpers", "misc"}
    assert {part for path in modules().values() for part in path.parts} & forbidden == set()


def test_the_house_as_it_stands():
    by_floor: dict[int, set[str]] = {}
    for module in modules():
        if place(module):
            by_floor.setdefault(floor(module), set()).add(place(module))
    for number in sorted(by_floor, reverse=True):
        print(f"floor {number}: {' '.join(sorted(by_floor[number]))}")  # shown by pytest -s
    assert {"action", "schedule", "timeline", "clock"} <= by_floor[0]
    assert by_floor[4] == FLOORS[4]
