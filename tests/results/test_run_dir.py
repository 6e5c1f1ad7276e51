from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipezoo.errors import ConfigError, OutputError
from pipezoo.results.run_dir import MetricsFile, claim, read_metrics, read_result, write_json, write_text

A_FULL_DISK = 64 * 1024  # bytes that one file may have in the children below


def run_in_child(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` where no file can grow beyond ``A_FULL_DISK``, which fails as a full disk does."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (A_FULL_DISK, A_FULL_DISK))

    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=limit, check=False)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_claimed_folder_says_that_it_runs_and_holds_nothing_else(tmp_path: Path) -> None:
    claim(tmp_path / "a" / "b")
    assert read_result(tmp_path / "a" / "b")["status"] == "running"
    assert names(tmp_path / "a" / "b") == ["result.json"]


def test_a_folder_that_holds_a_run_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", {"status": "ok"})
    with pytest.raises(OutputError, match=r"^hydra\.run\.dir=.*: already holds a run") as refused:
        claim(tmp_path)
    assert refused.value.exit_code == 6
    assert read_result(tmp_path) == {"status": "ok"}
    assert names(tmp_path) == ["result.json"]


def test_a_folder_with_other_files_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    claim(tmp_path)
    assert names(tmp_path) == [".hydra", "result.json"]


def test_of_many_claims_at_once_exactly_one_wins(tmp_path: Path) -> None:
    def wins(folder: Path) -> bool:
        try:
            claim(folder)
        except OutputError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        for attempt in range(20):
            folder = tmp_path / str(attempt)
            assert sum(pool.map(wins, [folder] * 8)) == 1


def test_two_processes_that_claim_one_folder_leave_one_winner(tmp_path: Path) -> None:
    code = "import sys; from pipezoo.results.run_dir import claim; input(); claim(sys.argv[1])"
    command = [sys.executable, "-c", code, str(tmp_path)]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(2)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(b"\n")
        racer.stdin.close()
    assert sorted(racer.wait(60) for racer in racers) == [0, 1]


def test_a_folder_below_a_file_cannot_be_claimed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"hydra\.run\.dir=.*: cannot be written: Not a directory"):
        claim(tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (math.nan, '"NaN"'),
        (math.inf, '"Infinity"'),
        (-math.inf, '"-Infinity"'),
        (np.float64(0.1), "0.1"),
        (np.float32(0.5), "0.5"),
        (np.arange(2), "[0,1]"),
        ((1, None, True), "[1,null,true]"),
        ({1: Path("a")}, '{"1":"a"}'),
        ("\udcff\u00e9\u4e2d", '"\\udcff\u00e9\u4e2d"'),
    ],
)
def test_what_is_written_is_json_whatever_is_in_it(tmp_path: Path, content: object, text: str) -> None:
    write_json(tmp_path / "x.json", content)
    written = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert "".join(written.split()) == text
    json.loads(written, parse_constant=pytest.fail)


def test_text_that_is_no_unicode_is_written_all_the_same(tmp_path: Path) -> None:
    write_text(tmp_path / "x.txt", "a\udcffb")
    assert (tmp_path / "x.txt").read_bytes() == b"a\\udcffb"


def test_what_has_no_spelling_in_json_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", 1)
    with pytest.raises(TypeError, match="object has no spelling in JSON"):
        write_json(tmp_path / "x.json", object())
    assert names(tmp_path) == ["x.json"]
    assert (tmp_path / "x.json").read_text() == "1\n"


def test_a_kill_in_the_middle_of_writing_never_leaves_a_torn_result(tmp_path: Path) -> None:
    code = """
        import sys
        from pipezoo.results.run_dir import write_json
        size = 0
        while True:
            size += 1
            write_json(sys.argv[1] + "/result.json", {"size": size, "losses": [0.1] * 30000, "end": size})
    """
    write_json(tmp_path / "result.json", {"size": 0, "end": 0})
    sizes = []
    for attempt in range(6):
        worker = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)])
        before = (tmp_path / "result.json").stat().st_mtime_ns
        while (tmp_path / "result.json").stat().st_mtime_ns == before:
            assert worker.poll() is None
            time.sleep(0.002)
        time.sleep(0.007 * attempt)
        worker.send_signal(signal.SIGKILL)
        assert worker.wait() == -signal.SIGKILL
        result = read_result(tmp_path)
        sizes.append(result["size"])
        assert result["end"] == result["size"]
    assert min(sizes) >= 1


def test_a_full_disk_is_exit_six_and_the_old_file_stays(tmp_path: Path) -> None:
    code = """
        import sys
        from pipezoo.errors import OutputError
        from pipezoo.results.run_dir import write_json
        try:
            write_json(sys.argv[1] + "/result.json", {"losses": [0.1] * 100000})
        except OutputError as error:
            print(error)
            sys.exit(error.exit_code)
    """
    write_json(tmp_path / "result.json", {"status": "running"})
    worker = run_in_child(code, str(tmp_path))
    assert worker.returncode == 6, worker.stderr
    assert worker.stdout == f"{tmp_path}/result.json: cannot be written: File too large\n"
    assert read_result(tmp_path) == {"status": "running"}
    assert names(tmp_path) == ["result.json"]


def test_metrics_on_a_full_disk_are_exit_six_and_every_line_before_can_be_read(tmp_path: Path) -> None:
    code = """
        import sys
        from pipezoo.errors import OutputError
        from pipezoo.results.run_dir import MetricsFile
        metrics = MetricsFile(sys.argv[1] + "/metrics.jsonl")
        try:
            for step in range(100):
                metrics.append({"step": step, "text": "x" * 10000})
        except OutputError as error:
            print(step)
            sys.exit(error.exit_code)
    """
    worker = run_in_child(code, str(tmp_path))
    assert worker.returncode == 6, worker.stderr
    assert worker.stdout == "6\n"  # six lines of ten thousand bytes fit into 64 KiB
    assert (tmp_path / "metrics.jsonl").read_bytes().endswith(b"}\n")
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [0, 1, 2, 3, 4, 5]


def test_each_line_of_metrics_is_there_when_append_returns(tmp_path: Path) -> None:
    with MetricsFile(tmp_path / "metrics.jsonl") as metrics:
        metrics.append({"step": 0, "loss": 0.5})
        assert read_metrics(tmp_path) == [{"step": 0, "loss": 0.5}]
        metrics.append({"step": 1, "loss": math.nan})
    assert read_metrics(tmp_path) == [{"step": 0, "loss": 0.5}, {"step": 1, "loss": "NaN"}]


def test_a_torn_last_line_is_left_out_when_read_and_taken_back_when_appended(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1, "lo')
    assert read_metrics(tmp_path) == [{"step": 0}]
    with MetricsFile(tmp_path / "metrics.jsonl") as metrics:
        metrics.append({"step": 1})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 0}\n{"step": 1}\n'


def test_a_folder_without_metrics_has_none(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "holds no run"),
        ("", "is not JSON"),
        ('{"status": "o', "is not JSON"),
        ("[1]", "is not the result of a run"),
        ("[" * 100000, "is not JSON"),
    ],
)
def test_a_folder_that_is_no_run_is_one_line_with_exit_code_two(tmp_path: Path, text: str | None, why: str) -> None:
    if text is not None:
        (tmp_path / "result.json").write_text(text)
    with pytest.raises(ConfigError, match=why) as refused:
        read_result(tmp_path)
    assert refused.value.exit_code == 2
    assert str(refused.value).startswith(f"folder={tmp_path}: ")
