"""One run, from its request to its exit code."""

# ruff: noqa: E501  (a message stands on one line)
from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

from pipezoo.cli.run import Request, ending, objective, result_of, run, take, to_yaml, write_files
from pipezoo.errors import ConfigError, OutputError


@pytest.mark.parametrize(
    ("result", "path", "value"),
    [
        ({"step_seconds": {"median": 0.5, "min": 0.1}}, "step_seconds", 0.5),
        ({"step_seconds": {"median": 0.5, "min": 0.1}}, "step_seconds.min", 0.1),
        ({"bubble": {"measured": {"makespan": 0.25}}}, "bubble.measured.makespan", 0.25),
        ({"losses": [3.0, 2.0, 1.0]}, "losses.-1", 1.0),
        ({"losses": [3.0, 2.0, 1.0]}, "losses.1", 2.0),
    ],
)
def test_the_objective_is_a_number_of_the_result(result, path, value):
    assert objective(result, path) == value


@pytest.mark.parametrize("result", [{}, {"step_seconds": 1.0, "exit_code": 3}, {"step_seconds": "fast"}])
def test_a_job_that_failed_has_no_objective(result):
    assert str(objective(result, "step_seconds")) == "nan"


@pytest.mark.parametrize("path", ["losses", "losses.3", "losses.-4", "losses.x", "losses.1.2", "verified", "dirty"])
def test_a_way_that_leads_to_no_number_gives_none(path):
    assert str(objective({"losses": [3.0, 2.0, 1.0], "verified": "exact", "dirty": True}, path)) == "nan"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("steps=0: must be an int"), 2, "error: steps=0: must be an int"),
        (OutputError("x: cannot be\x1b[31m written"), 6, "error: x: cannot be [31m written"),
        (SystemExit(0), 2, "error: something in this run called sys.exit(0) before its end"),
        (OSError(28, "No space left on device", "metrics.jsonl"), 6, "error: metrics.jsonl: cannot be written: No space left on device"),
        (ZeroDivisionError("division by zero"), 1, "error: ZeroDivisionError: division by zero"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)  # fmt: skip
def test_every_error_has_a_code_and_a_line(error, code, line):
    assert ending(error) == (code, line)


def test_what_says_nothing_that_could_be_run_ends_with_its_reason_and_leaves_no_folder(tmp_path, capsys):
    folder = tmp_path / "2026-11-23" / "10-00-00-abcd"
    folder.mkdir(parents=True)
    assert run(Request(ConfigError("steps=none: must be an int"), folder), print) == 2
    assert capsys.readouterr().err == "error: steps=none: must be an int\n"
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_that_was_there_before_stays(tmp_path, capsys):
    os.utime(tmp_path, (time.time() - 60, time.time() - 60))
    assert run(Request(ConfigError("steps=none: must be an int"), tmp_path), print) == 2
    assert tmp_path.is_dir()


def test_the_result_of_a_run_whose_folder_is_claimed_says_why_it_ended(tmp_path, capsys):
    take(tmp_path)
    assert run(Request(ConfigError("steps=none: must be an int"), tmp_path), print, claimed=True) == 2
    result = result_of(tmp_path)
    assert (result["status"], result["exit_code"], result["error"]) == ("failed", 2, "steps=none: must be an int")
    take(tmp_path)  # it never held a run
    assert result_of(tmp_path)["status"] == "running"
    with pytest.raises(OutputError, match="already holds a run"):
        take(tmp_path)


def test_files_are_written_as_yaml_that_reads_back_to_the_same(tmp_path: Path):
    content = {"b": [1, 2.5, None, True], "a": {"text": "1e-3", "more": "a: b", "none": "null"}, "umlaut": "ü"}
    write_files(Request(ConfigError(""), tmp_path, {".hydra/config.yaml": content}))
    text = (tmp_path / ".hydra" / "config.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == content
    assert text == to_yaml(content)
    assert text.startswith("b:\n")
