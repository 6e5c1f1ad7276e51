"""Folders that were used, moved, deleted or full, systems that give nothing, files that are none: one line, soon."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from pipezoo.cli.outcome import ending, record
from pipezoo.errors import OutputError
from pipezoo.results.run_dir import MetricsFile, claim, read_metrics, read_result
from pipezoo.validators import regular_file
from tests.support.command import SMALL, Command, command


@pytest.mark.parametrize("name", ["metrics.jsonl", ".scratch", "ranks.log", "failure.json", "checkpoints"])
@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_a_folder_that_a_run_was_in_is_refused(tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises(OutputError, match=f"holds {name}, which a run left there"):
        claim(tmp_path)
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("away", [shutil.rmtree, lambda folder: folder.rename(folder.with_name("moved"))])
def test_a_folder_that_goes_away_ends_the_run_at_its_next_step(tmp_path, away):
    folder = tmp_path / "run"
    folder.mkdir()
    with MetricsFile(folder / "metrics.jsonl") as metrics:
        metrics.append({"step": 0})
        away(folder)
        with pytest.raises(OutputError, match="run: was moved or deleted while the run wrote there"):
            metrics.append({"step": 1})


def test_a_command_whose_folder_is_deleted_ends_soon_with_6(tmp_path):
    run = command(tmp_path, "steps=100000")
    _until(lambda: (tmp_path / "run" / "metrics.jsonl").exists())
    while (tmp_path / "run").exists():  # ranks may still make files there
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
    assert run.wait().code == 6
    assert len(run.err.splitlines()) == 1
    assert run.err.endswith("run: was moved or deleted while the run wrote there\n")


def test_a_full_disk_leaves_no_result_that_says_running(tmp_path, monkeypatch):
    claim(tmp_path)

    def full(path, content):
        raise OutputError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr("pipezoo.cli.outcome.write_json", full)
    record(tmp_path, 6, "error: timeline.npz: cannot be written: No space left on device")
    assert read_result(tmp_path) == {
        "status": "failed",
        "exit_code": 6,
        "error": "timeline.npz: cannot be written: No space left on device",
    }


@pytest.mark.parametrize(
    ("number", "code"),
    [
        *((number, 6) for number in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG)),
        *((number, 4) for number in (errno.EMFILE, errno.EAGAIN, errno.ENOMEM, errno.ENFILE)),
    ],
)
def test_what_the_system_does_not_give_is_one_line(number, code):
    ended, line = ending(OSError(number, os.strerror(number), None))
    assert (ended, line.startswith("error: "), os.strerror(number) in line) == (code, True, True)


class Poor(Command):
    """Has twelve descriptors."""

    def _main(self) -> None:
        os.closerange(3, 1024)
        resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))
        super()._main()


def test_a_system_without_free_descriptors_is_one_line(tmp_path):
    ended = Poor(tmp_path, (*SMALL, "stages=2", "hydra.run.dir=here")).start().wait()
    ended.gone_after(0.5)
    assert ended.code == 4
    assert ended.err.splitlines()[-1].startswith("error: rank ")
    assert ended.err.splitlines()[-1].endswith(" could not be started: Too many open files")
    assert "Traceback" not in ended.err


def test_fifos_and_devices_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(OSError, match="is no regular file"):
            regular_file(path)
    assert regular_file(tmp_path / "missing") == tmp_path / "missing"
    for name in ("result.json", "metrics.jsonl"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(Exception, match="is no regular file"):
        read_result(tmp_path)
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize(
    "words",
    ["schedule=csv schedule.file={}", "cost=file cost.file={}", "resume={}", "data=text data.path={} model=gpt"],
)
def test_a_fifo_that_a_key_names_is_refused(tmp_path, words):
    os.mkfifo(tmp_path / "fifo")
    task = () if "data" in words or "resume" in words else ("task=simulate", "ranks=2")
    ended = Command(tmp_path, (*task, *words.format("fifo").split(), "hydra.run.dir=run")).start().wait()
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert "fifo" in ended.err


def test_a_job_of_a_sweep_that_is_halted_is_given_up_and_the_others_run(tmp_path):
    words = ("-m", "seed=0,1", "steps=300", "launch.step_timeout=1", "hydra.sweep.dir=sweep")
    run = command(tmp_path, *words)
    _until(lambda: (tmp_path / "sweep" / "0" / "metrics.jsonl").exists())
    job = json.loads((tmp_path / "sweep" / "0" / "result.json").read_text())["pid"]
    children = [pid for pid in run.processes() if _parent(pid) == run.pid]
    assert len(children) == 1, (job, children)
    os.kill(children[0], signal.SIGSTOP)
    _until(lambda: read_result(tmp_path / "sweep" / "0").get("exit_code") is not None, 40)
    assert read_result(tmp_path / "sweep" / "0")["error"] == (
        "nobody moved for launch.step_timeout=1 s: the run's process is stopped"
    )
    run.wait()
    assert run.code == 124
    assert read_result(tmp_path / "sweep" / "1")["status"] == "ok"
    run.gone_after(2.0)


def test_all_that_is_done_before_the_first_process_has_a_limit(tmp_path):
    run = command(tmp_path, "launch.start_timeout=0.001")
    assert run.wait().code == 124
    assert run.err.splitlines() == ["error: no process was started within launch.start_timeout=0.001 s"]


def test_a_run_ends_by_saying_where_its_page_is(tmp_path):
    assert command(tmp_path / "good").wait().out.splitlines()[-1] == "report    run/report.html"
    failed = command(tmp_path / "failed", "fault=kill").wait()
    assert failed.out.splitlines()[-1] == "report    run/report.html; where each rank stood is in failure.json"
    assert len(failed.err.splitlines()) == 1


def test_the_first_line_stands_there_before_anything_is_built(tmp_path):
    run = command(tmp_path, "optimizer.lr=-1").wait()
    assert run.code == 2
    assert run.out.startswith("pipezoo   ")


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _until(condition, seconds: float = 30.0) -> None:
    until = time.time() + seconds
    while not condition():
        assert time.time() < until
        time.sleep(0.02)


LONG = "a" * 300  # characters, of which a file's name may have 255


@pytest.mark.parametrize(
    "words",
    [
        ("simulate", "ranks=2", f"model={LONG}"),
        ("simulate", "ranks=2", f"experiment={LONG}"),
        ("-m", "simulate", "ranks=2", f"schedule={LONG},gpipe"),
        ("simulate", "schedule=csv", f"schedule.file={LONG}"),
        ("simulate", "ranks=2", "cost=file", f"cost.file={LONG}"),
        ("model=gpt", "data=text", f"data.path={LONG}"),
        ("model=multi_mlp", "split=modules", f"resume={LONG}"),
        ("-m", f"sweep.resume={LONG}"),
        ("report", LONG),
        ("rerun", LONG),
    ],
    ids=lambda words: words[-1].partition("=")[0][:10] + words[0],
)
def test_a_name_that_is_too_long_for_a_file_is_one_line(tmp_path, words):
    ended = Command(tmp_path, words).start().wait()
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
