"""A command line as one of several processes of a world: one run, one folder, one output, one verdict."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from pipezoo.results.run_dir import read_metrics, read_result
from pipezoo.results.timeline_file import load_timelines
from pipezoo.schedule.action import Op
from tests.support.command_line import Ended, WarmParent
from tests.support.worlds import StartedWorld, free_port, start_world

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


def _wait_for_steps(folder: Path, steps: int) -> None:
    until = time.monotonic() + 60
    while len(read_metrics(folder)) < steps and time.monotonic() < until:
        time.sleep(0.01)


def _silent(ended: list[Ended]) -> bool:
    return not any(one.out or one.err for one in ended[1:])


def test_torchrun_makes_one_run(tmp_path: Path, environment: dict[str, str], no_process_left: None) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["model=multi_mlp", "model.d_hid=16", "stages=2", "steps=2"]
    ended = subprocess.run(
        [*torchrun, "-m", "pipezoo", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110
    )
    assert ended.returncode == 0, ended.stderr
    folders = [path.parent for path in tmp_path.glob("outputs/*/*/result.json")]
    assert len(folders) == 1
    result = read_result(folders[0])
    assert (result["verified"], result["launch"], result["num_ranks"]) == ("exact", "world", 2)
    assert ended.stdout.count("verified  exact") == 1
    assert "2 processes of torchrun's world over gloo" in ended.stdout
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
    "another number of ranks": (("stages=4",), 2, "error: ranks=4: the pipeline has 4 processes, and torchrun has"),
    "a sweep": (("-m", "steps=1,2"), 2, "error: -m: this is one run in the 2 processes of torchrun"),
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


@pytest.fixture
def agent_store() -> Iterator[dict[str, str]]:
    """The variables of a starter that keeps a store for all attempts, as torchrun's agent does."""
    import torch.distributed as dist

    store = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    yield {"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "test"}
    del store


def test_an_attempt_goes_on_where_the_last_checkpoint_ended(
    world: Callable[..., StartedWorld], agent_store: dict[str, str], cli, tmp_path: Path
) -> None:
    words = (*SMALL[:3], "steps=6", "checkpoint.every=2", "fault=kill", "fault.rank=1", "fault.step=3")
    first = world(*words, **agent_store).wait()
    second = world(*words, **agent_store, TORCHELASTIC_RESTART_COUNT="1").wait()
    assert (_codes(first), _codes(second)) == ([4, 4], [0, 0]), second[0].err
    assert "attempt 1; the one before ended with exit code 4 (rank 1)" in second[0].out
    (folder,) = [path.parent for path in tmp_path.glob("outputs/*/*/result.json")]
    result = read_result(folder)
    assert result["attempts"] == [
        {"exit_code": 4, "first_failure": "rank 1", "from_step": 0},
        {"exit_code": 0, "first_failure": None, "from_step": 2},
    ]
    assert (result["verified"], result["status"]) == ("exact", "ok")
    assert [line["step"] for line in read_metrics(folder)] == [0, 1, 2, 3, 4, 5]
    assert cli(*SMALL[:3], "steps=6", "hydra.run.dir=undisturbed").code == 0
    assert result["losses"] == read_result(tmp_path / "undisturbed")["losses"]


def test_what_would_end_alike_is_not_tried_again(
    world: Callable[..., StartedWorld], agent_store: dict[str, str]
) -> None:
    first = world(*SMALL, "schedule=nope", **agent_store).wait()
    second = world(*SMALL, "schedule=nope", **agent_store, TORCHELASTIC_RESTART_COUNT="1").wait()
    assert (_codes(first), _codes(second)) == ([2, 2], [2, 2])
    assert len(first[0].error_lines) == 1
    assert not second[0].err


def test_a_second_command_of_the_same_script_is_another_run(
    world: Callable[..., StartedWorld], agent_store: dict[str, str], tmp_path: Path
) -> None:
    for folder in ("first", "second"):
        assert _codes(world(*SMALL[:4], f"hydra.run.dir={folder}", **agent_store).wait()) == [0, 0]
    assert read_result(tmp_path / "second")["verified"] == "exact"


def test_replicas_of_a_pipeline_are_processes_of_the_world(world: Callable[..., StartedWorld], tmp_path: Path) -> None:
    ended = world(*SMALL, "mesh.dp=2", size=4).wait()
    assert _codes(ended) == [0, 0, 0, 0], ended[0].err
    assert read_result(tmp_path / "run")["verified"] == "exact"


def test_as_many_ranks_as_processes_where_nobody_says_how_many(world: Callable[..., StartedWorld]) -> None:
    ended = world("model=gpt", "data.context=8", "model.width=16", "steps=1").wait()
    assert _codes(ended) == [0, 0], ended[0].err
    assert "derived   ranks=2, for the 2 processes of torchrun" in ended[0].out
    assert "2 stages on 2 ranks" in ended[0].out


def test_a_port_that_is_taken_is_named(world: Callable[..., StartedWorld]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ended = world(*SMALL, f"launch.port={port}").wait()
    assert _codes(ended) == [2, 2]
    assert ended[0].err.startswith(f"error: launch.port={port}: rank 0 cannot listen at 127.0.0.1")


def test_other_words_in_another_process_are_named(warm_parent, environment, tmp_path: Path) -> None:
    port = str(free_port())
    started = []
    for rank, more in (("0", ()), ("1", ("steps=3",))):
        place = {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        started.append(warm_parent.start("pipezoo", (*SMALL, *more), tmp_path, environment | place))
    ended = [process.wait() for process in started]
    assert _codes(ended) == [2, 2]
    assert "was started with other words than rank 0 (steps=3)" in ended[0].err


def test_a_checkpoint_is_written_when_a_signal_asks_for_it(world: Callable[..., StartedWorld], tmp_path: Path) -> None:
    words = ("model.d_hid=128", "batch_size=1024", "steps=40", "checkpoint.every=1000", "verify=false")
    started = world(*SMALL, *words)
    _wait_for_steps(tmp_path / "run", 2)
    started.processes[0].send_signal(signal.SIGUSR2)
    started.processes[1].send_signal(signal.SIGUSR2)  # as srun does; it is rank 0's to act upon it
    ended = started.wait()
    assert _codes(ended) == [0, 0], ended[0].err
    asked, last = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert asked < last == "step-00000040"
    assert f"save      after step {int(asked[5:])}, as SIGUSR2 asks for" in ended[0].out


@pytest.mark.parametrize("victim", [0, 1])
def test_nobody_outlives_a_process_that_is_killed(
    world: Callable[..., StartedWorld], tmp_path: Path, victim: int
) -> None:
    started = world(*SMALL, *IMPATIENT, "fault=hang", "fault.step=1", "launch.step_timeout=50", "verify=false")
    _wait_for_steps(tmp_path / "run", 1)
    started.processes[victim].send_signal(signal.SIGKILL)
    ended = started.wait(20.0)
    assert ended[victim].code == -signal.SIGKILL
    assert ended[1 - victim].code == 4
    if victim == 1:
        assert "rank 1 closed its line without a word" in ended[0].err


def _no_time_namespace() -> bool:
    words = ["unshare", "--time", "--monotonic", "1", "--fork", "true"]
    return shutil.which("unshare") is None or subprocess.run(words, capture_output=True).returncode != 0


def test_a_machine_that_runs_for_longer_is_put_on_our_clock(
    warm_parent: WarmParent, environment: dict[str, str], tmp_path: Path
) -> None:
    if _no_time_namespace():
        pytest.skip("a clock of its own needs root and unshare --time")
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    first = warm_parent.start("pipezoo", SMALL, tmp_path, environment | place | {"RANK": "0"})
    late = ["unshare", "--time", "--monotonic", "100000", "--fork", "--kill-child", sys.executable, "-m", "pipezoo"]
    other = subprocess.Popen([*late, *SMALL], cwd=tmp_path, env=environment | place | {"RANK": "1"})
    assert (first.wait().code, other.wait(60)) == (0, 0)
    told = json.loads((tmp_path / "run" / "timeline.json").read_text())["otherData"]["clocks"]["rank 1"]
    assert told["offset_seconds"] == [pytest.approx(-100_000, abs=1)] * 2
    measured, error = load_timelines(tmp_path / "run")[-1], told["error_seconds"] + 1e-6
    began = {key: i for i, key in enumerate(zip(measured.stage, measured.op, measured.microbatch, strict=True))}
    forward, backward = (op.value for op in (Op.F, Op.B))
    for mb in range(8):  # no message arrives before it was sent, to either side
        assert measured.start[began[1, forward, mb]] >= measured.end[began[0, forward, mb]] - error
        assert measured.start[began[0, backward, mb]] >= measured.end[began[1, backward, mb]] - error
    assert measured.makespan < 30
