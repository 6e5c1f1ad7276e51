"""What tests share: the command line as a process of its own, and the certainty that it left none behind."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import REPOSITORY, Ended, Warm, WarmParent, run_cold
from tests.support.slurm import Slurm, running_slurm, why_no_slurm
from tests.support.two_machines import TwoMachines, two_machines, why_no_machines

os.environ["OMP_NUM_THREADS"] = "1"
MARK = "PIPEZOO_TEST"  # an environment variable that every process below a test inherits


CommandLine = Callable[..., Ended]


UNIT = (
    "planner/",
    "report/",
    "results/",
    "schedule/",
    "schedules/",
    "simulator/",
    "topology/",
)  # need no torch
NOT_UNIT = (
    "report/test_browser.py",
    "report/test_main.py",
    "results/test_run_dir.py",
    "schedules/test_torch_orders.py",
    "schedules/test_torch_reads.py",
)
STARTS = {"cli", "cold_cli", "start", "warm_parent", "environment", "no_process_left"}  # fixtures that start processes
TIMED = (
    "profiling/",
    "report/test_browser.py",
    "runtime/test_emulation.py",
    "supervisor/",
    "tasks/test_measure_costs.py",
)
CLUSTERS = {"slurm": "slurm", "machines": "machines"}  # fixtures of which a worker has one, and their markers
SPREAD = ("test_matrix.py", "runtime/test_checkpoint.py")  # long, and nothing is shared


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by kind; a worker of pytest-xdist takes whole files, and one of them all that look at the clock."""
    for item in items:
        name = item.path.relative_to(REPOSITORY / "tests").as_posix()
        if name.startswith(UNIT) and name not in NOT_UNIT:
            item.add_marker("unit")
        if STARTS & {*getattr(item, "fixturenames", ())} or name.startswith(("supervisor/", "test_matrix")):
            item.add_marker("process")
        clusters = [marker for fixture, marker in CLUSTERS.items() if fixture in getattr(item, "fixturenames", ())]
        for marker in clusters:
            item.add_marker(marker)
        for word, marker in (("browser", "browser"), ("packaging", "package")):
            if f"test_{word}.py" in name:
                item.add_marker(marker)
        if config.pluginmanager.hasplugin("xdist") and name not in SPREAD:
            group = "clusters" if clusters else "timed" if name.startswith(TIMED) else name
            item.add_marker(pytest.mark.xdist_group(group))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """``-m unit`` reads no other files, which would import torch."""
    if config.option.markexpr != "unit" or not collection_path.is_file():
        return None
    name = os.path.relpath(collection_path, REPOSITORY / "tests")
    is_unit = name.startswith(UNIT) and name not in NOT_UNIT
    return None if is_unit else True


@pytest.fixture
def mark() -> str:
    """The value of ``MARK`` in this test's processes."""
    return uuid.uuid4().hex


@pytest.fixture
def environment(mark: str) -> dict[str, str]:
    """What a process of this test finds in its environment: the package, wherever it runs."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, MARK: mark}


@pytest.fixture(scope="session")
def warm_parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmParent]:
    """The process that has imported torch, and forks command lines."""
    parent = WarmParent(tmp_path_factory.mktemp("warm"))
    yield parent
    parent.end()


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str], warm_parent: WarmParent) -> Callable[..., Warm]:
    """``start("steps=3")`` starts ``python -m pipezoo steps=3`` in an empty folder, ``tmp_path``, and does not wait."""

    def start(*words: str, module: str = "pipezoo", cwd: Path = tmp_path) -> Warm:
        return warm_parent.start(module, words, cwd, environment)

    return start


@pytest.fixture
def cli(start: Callable[..., Warm]) -> CommandLine:
    """``cli("steps=3", "stages=2")`` runs ``python -m pipezoo steps=3 stages=2`` in an empty folder, ``tmp_path``.

    Forked from a process that has imported torch already. What it starts has to end with it.
    """

    def run(*words: str, timeout: float = 100.0, **where: Any) -> Ended:
        return start(*words, **where).wait(timeout)

    return run


@pytest.fixture
def cold_cli(tmp_path: Path, environment: dict[str, str], no_process_left: None) -> CommandLine:
    """As ``cli``, in a new interpreter: for tests whose subject is the start."""

    def run(*words: str, module: str = "pipezoo", cwd: Path = tmp_path, timeout: float = 100.0) -> Ended:
        return run_cold(["-m", module, *words], cwd, environment, timeout)

    return run


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A Slurm of two nodes, the same one for all tests; its jobs find pipezoo where these tests do."""
    if why := why_no_slurm():
        pytest.skip(f"no Slurm: {why}")
    with running_slurm() as slurm:
        yield slurm


@pytest.fixture
def machines(environment: dict[str, str]) -> Iterator[TwoMachines]:
    """Two machines with a cable between them."""
    if why := why_no_machines():
        pytest.skip(f"no second machine: {why}")
    with two_machines(environment) as machines:
        yield machines


@pytest.fixture
def no_process_left(mark: str) -> Iterator[None]:
    """Fails a test whose processes are not all gone half a second after it."""
    yield
    deadline = time.monotonic() + 0.5
    while (left := processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left


def processes_with(mark: str) -> dict[int, str]:
    """The command lines of the living processes that carry ``mark``, by process id. Empty where there is no /proc."""
    found = {}
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it ended, or is not ours
            continue
    return found


@pytest.fixture
def pipeline(tmp_path: Path) -> Callable[..., Any]:
    """``pipeline(model, schedule)``: ready to run, its processes' files in ``tmp_path``."""
    from tests.support.pipelines import build_pipeline

    return partial(build_pipeline, tmp_path)
