"""A launch is one file and one YAML file: what it says of itself is all that anybody asks it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from pipezoo.launch import Processes, Virtual
from pipezoo.launch.launch import Launch, Machine
from pipezoo.results.run_dir import read_result
from pipezoo.schedules.zbv import zbv

PACKAGE = Path(__file__).resolve().parents[2] / "pipezoo"
SLOW = "2 processes over gloo, as slow as cost=unit says"
PAIRS = """
from dataclasses import dataclass
from pipezoo.launch import Processes
from pipezoo.simulator.cost import P2P
from pipezoo.simulator.virtual_clock import replay

@dataclass(frozen=True)
class Pairs(Processes):
    def placement(self, schedule):
        return tuple(rank // 2 for rank in schedule.stage_to_rank)

    def names(self, num_processes):
        return [f"ranks {2 * process} and {2 * process + 1}" for process in range(num_processes)]

    def timelines(self, real, schedule, message_bytes):
        return [replay(schedule, timeline, P2P(), message_bytes) for timeline in real]

    def describe(self, machine):
        return f"{machine.num_ranks} ranks in {machine.num_processes} processes"
"""


def test_a_third_launch_is_one_file_and_one_yaml_file(tmp_path, cli):
    (tmp_path / "pairs.py").write_text(PAIRS)
    (tmp_path / "conf" / "launch").mkdir(parents=True)
    (tmp_path / "conf" / "launch" / "pairs.yaml").write_text("_target_: pairs.Pairs\nstep_timeout: 20.0\n")
    words = ("--config-dir", "conf", "trust=pairs", "launch=pairs", "model=multi_mlp", "model.d_hid=16")
    ended = cli(*words, "stages=4", "steps=2", "hydra.run.dir=run")
    assert (ended.code, ended.err) == (0, "")
    assert "launch    4 ranks in 2 processes; 2 steps of sgd_momentum, executor=native" in ended.out
    result = read_result(tmp_path / "run")
    assert (result["launch"], result["num_ranks"], result["verified"]) == ("pairs", 4, "exact")


@pytest.mark.parametrize(
    ("launch", "placement", "names", "threads"),
    [
        (Processes(), (0, 1, 1, 0), ["rank 0", "rank 1"], 4),
        (Virtual(), (0, 0, 0, 0), ["the virtual ranks"], 1),
        (Processes(threads=3), (0, 1, 1, 0), ["rank 0", "rank 1"], 3),
    ],
)
def test_a_launch_says_where_stages_run_and_with_how_many_threads(
    launch: Launch, placement: tuple[int, ...], names: list[str], threads: int
) -> None:
    assert launch.placement(zbv(2, 4)) == placement
    assert launch.names(max(placement) + 1) == names
    assert launch.threads_of(max(placement) + 1, num_cores=8) == threads


@pytest.mark.parametrize(
    ("launch", "machine", "line"),
    [
        (Processes(), Machine(2, 2, 1, 2, "cpu"), "2 processes over gloo, threads=1 each on 2 cores"),
        (Processes(), Machine(4, 4, 1, 1, "cpu"), "4 processes over gloo, threads=1 each on 1 core, which they share"),
        (
            Processes(),
            Machine(2, 2, 1, 2, "cpu", emulated="cost=unit"),
            "2 processes over gloo, as slow as cost=unit says",
        ),
        (Processes(), Machine(2, 2, 1, 1, "cuda"), "2 processes over nccl, a GPU each, threads=1 each on 1 core"),
        (Virtual(), Machine(4, 1, 1, 2, "cpu"), "4 virtual ranks in one process on the CPU, threads=1 each on 2 cores"),
    ],
)
def test_a_launch_describes_itself_in_the_start_up_line(launch: Launch, machine: Machine, line: str) -> None:
    assert launch.describe(machine) == line


def test_nobody_asks_a_launch_for_its_class():
    asked = [
        f"{file.relative_to(PACKAGE)}:{node.lineno}"
        for file in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass", "type")
        if {"Processes", "Virtual", "launch"} & {word for arg in node.args for word in ast.unparse(arg).split(".")}
    ]
    assert asked == []


def test_launches_import_no_torch():
    code = "import sys, pipezoo.launch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
