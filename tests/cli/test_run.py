"""One run, from its request to its exit code."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

from pipezoo.cli.outcome import result_of
from pipezoo.cli.request import Request
from pipezoo.cli.run import run, take, to_yaml, write_files
from pipezoo.errors import ConfigError, OutputError


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
