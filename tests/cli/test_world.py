"""A command line as one of several processes of a world: one run, one folder, one output, one verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipezoo.results.run_dir import read_metrics, read_result
from tests.support.command_line import Ended, WarmParent
from tests.support.worlds import StartedWorld, start_world

pytestmark = pytest.mark.process

SMALL = ("model=multi_mlp", "model.d_hid=16", "stages=2", "steps=2", "hydra.run.dir=run")
IMPATIENT = ("launch.step_timeout=1.5", "launch.first_step_timeout=20")


@pytest.fixture
def world(
    warm_parent: WarmParent, environment: dict[str, str], tmp_path: Path, no_process_left: None
) -> Callable[..., StartedWorld]:
    """``world("steps=3", size=2)`` starts two processes of one world in ``tmp_path``."""

    def start(*words: str, size: int = 2, **more: str) -> StartedWorld:
        return start_world(warm_parent, environment, tmp_path, words, size, **more)

    return partial(start)


def _codes(ended: list[Ended]) -> list[int]:
    return [one.code for one in ended]


def _silent(ended: list[Ended]) -> bool:
    return not any(one.out or one.err for one in ended[1:])


def test_torchrun_makes_one_run(tmp_path: Path, environment: dict[str, str], no_process_left: None) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    words = ["model=multi_mlp", "model.d_hid=16", "stages=4", "steps=2"]
    ended = subprocess.run(
        [*torchrun, "-m", "pipezoo", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110
    )
    assert ended.returncode == 0, ended.stderr
    folders = [path.parent for path in tmp_path.glob("outputs/*/*/result.json")]
    assert len(folders) == 1
    result = read_result(folders[0])
    assert (result["verified"], result["launch"], result["num_ranks"]) == ("exact", "world", 4)
    assert ended.stdout.count("verified  exact") == 1
    assert "4 processes of torchrun's world over gloo" in ended.stdout
    assert [line["step"] for line in read_metrics(folders[0])] == [0, 1]


def test_the_same_numbers_as_without_a_world(world: Callable[..., StartedWorld], cli, tmp_path: Path) -> None:
    ended = world(*SMALL).wait()
    assert _codes(ended) == [0, 0], ended[0].err
    assert _silent(ended)
    assert cli(*SMALL[:-1], "hydra.run.dir=alone").code == 0
    joined, alone = read_result(tmp_path / "run"), read_result(tmp_path / "alone")
    assert joined["losses"] == alone["losses"]
    assert joined["verified"] == alone["verified"] == "exact"
    assert joined["config_hash"] == alone["config_hash"]
    timeline = json.loads((tmp_path / "run" / "timeline.json").read_text())["otherData"]
    assert set(timeline["clocks"]) == {"rank 1"}
    assert timeline["clocks"]["rank 1"]["error_seconds"] < 0.05


WRONG = {
    "an unknown schedule": (("schedule=nope",), 2, "error: schedule=nope: unknown schedule"),
    "another launch": (("launch=processes",), 2, "error: launch=processes: torchrun has started 2 processes"),
    "virtual ranks": (("launch=virtual",), 2, "error: launch=virtual: torchrun has started 2 processes"),
    "another number of ranks": (("stages=4",), 2, "error: ranks=4: the pipeline has 4 processes, and torchrun has"),
    "a sweep": (("-m", "steps=1,2"), 2, "error: -m: this is one run in the 2 processes of torchrun"),
    "a key of another launch": (("launch.latency=1",), 2, "error: launch.latency"),
    "a port that is none": (("launch.port=0",), 2, "error: launch.port=0: "),
    "an interface that is none": (("launch.interface=wire0",), 2, "error: launch.interface=wire0: there is none on"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_config_is_one_line_of_one_process_and_leaves_no_folder(
    world: Callable[..., StartedWorld], tmp_path: Path, name: str
) -> None:
    words, code, line = WRONG[name]
    ended = world(*SMALL, *words).wait()
    assert _codes(ended) == [code, code]
    assert _silent(ended)
    assert ended[0].err.startswith(line), ended[0].err
    assert len(ended[0].error_lines) == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_without_a_world_there_is_none_to_join(cli) -> None:
    ended = cli(*SMALL, "launch=world")
    assert (ended.code, len(ended.error_lines)) == (2, 1)
    assert ended.err.startswith("error: launch=world: this process is in no world of several")


def test_half_a_world_is_refused_by_one_process(cli, warm_parent, environment, tmp_path: Path) -> None:
    half = environment | {"WORLD_SIZE": "2"}
    processes = [warm_parent.start("pipezoo", SMALL, tmp_path, half | {"LOCAL_RANK": rank}) for rank in ("0", "1")]
    ended = [process.wait() for process in processes]
    assert _codes(ended) == [2, 2]
    assert ended[0].err.startswith("error: RANK: is not set; WORLD_SIZE is")
    assert _silent(ended)


def test_an_order_is_simulated_once(world: Callable[..., StartedWorld], tmp_path: Path) -> None:
    ended = world("task=simulate", "ranks=3", "hydra.run.dir=run").wait()
    assert _codes(ended) == [0, 0], ended[0].err
    assert _silent(ended)
    assert read_result(tmp_path / "run")["task"] == "simulate"


FAULTS = {
    "is killed": (("fault=kill", "fault.rank=1", "fault.at=1F2"), 4, "rank 1 was killed by SIGKILL"),
    "raises": (("fault=raise", "fault.rank=1", "fault.at=1B1"), 4, "rank 1 (stage 1, step 1, at 1B1): RuntimeError"),
    "raises, the first": (("fault=raise", "fault.rank=0", "fault.at=0B1"), 4, "rank 0 (stage 0, step 1, at 0B1)"),
    "hangs": (("fault=hang", "fault.rank=1", "fault.at=1B1"), 124, "rank 1 does not move (stage 1, step 1, at 1B1)"),
    "is halted": (("fault=stop", "fault.rank=1", "fault.at=1F1"), 124, "rank 1 is stopped (stage 1, step 1, at 1F1)"),
    "starts from other numbers": (("fault=drift", "fault.rank=1", "fault.at=start"), 3, "rank 1 starts with other"),
    "cannot build": (("fault=raise", "fault.rank=1", "fault.at=build"), 4, "rank 1 (building its stages)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_first_failure_is_named_and_every_process_has_the_code(
    world: Callable[..., StartedWorld], tmp_path: Path, name: str
) -> None:
    words, code, said = FAULTS[name]
    at_step = () if words[-1] in ("fault.at=start", "fault.at=build") else ("fault.step=1",)
    ended = world(*SMALL, *IMPATIENT, *words, *at_step).wait()
    assert _codes(ended) == [code, code], ended[0].err
    assert _silent(ended)
    assert said in ended[0].err
    assert read_result(tmp_path / "run")["exit_code"] == code
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    if code != 3:  # which all of them find
        assert failure["first_failure"] == ("rank 0" if "first" in name else "rank 1")
    if code == 124:
        assert "most recent call first" in (tmp_path / "run" / "ranks.log").read_text()
