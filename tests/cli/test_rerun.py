"""A run is repeated from its folder alone, and the repetition says what differs."""

# ruff: noqa: E501  (a message stands on one line)
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from pipezoo.cli.rerun import compare
from pipezoo.cli.words_of_run import words_of
from pipezoo.config.overrides import leaves, literal
from pipezoo.errors import ConfigError
from tests.conftest import REPOSITORY

SMALL = ("model=multi_mlp", "model.d_hid=8", "stages=1", "verify=false", "steps=2", "seed=5")


@pytest.fixture(scope="module")
def run_once(tmp_path_factory, warm_parent) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("run") / "first"
    words = (*SMALL, f"hydra.run.dir={folder}")
    assert warm_parent.start("pipezoo", words, REPOSITORY, dict(os.environ)).wait().code == 0
    return folder


@pytest.fixture
def first(run_once, tmp_path) -> Path:
    """A copy of that folder, free to be changed."""
    return Path(shutil.copytree(run_once, tmp_path / "first"))


def test_a_repeated_run_has_the_same_losses_bit_for_bit(cli, first, tmp_path):
    ended = cli("first", "hydra.run.dir=second", module="pipezoo.rerun")
    assert (ended.code, ended.err) == (0, "")
    assert "again     first -> second" in ended.out
    assert "losses    the same in all 2 steps, bit for bit" in ended.out
    losses = [json.loads((tmp_path / name / "result.json").read_text())["losses"] for name in ("first", "second")]
    assert losses[0] == losses[1]


def test_what_is_typed_behind_the_folder_is_changed(cli, first, tmp_path):
    ended = cli("rerun", "first", "seed=6", "hydra.run.dir=second")
    assert ended.code == 0
    assert "losses    differ from step 0 on: " in ended.out
    assert yaml.safe_load((tmp_path / "second" / "config.yaml").read_text())["seed"] == 6


def test_what_the_files_say_otherwise_today_is_said_and_set_back(first):
    config = yaml.safe_load((first / "config.yaml").read_text())
    config["optimizer"]["lr"] = 0.25
    (first / "config.yaml").write_text(yaml.safe_dump(config))
    words, differences = words_of(first)
    assert differences == ["differs   optimizer.lr=0.25 then, 0.3 in conf/ today; it is set back"]
    assert words == [*SMALL, "optimizer.lr=0.25"]


def test_another_default_today_is_said_and_set_back(first):
    hydra = yaml.safe_load((first / ".hydra" / "hydra.yaml").read_text())
    hydra["hydra"]["runtime"]["choices"]["schedule"] = "gpipe"
    (first / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
    config = yaml.safe_load((first / "config.yaml").read_text())
    config["schedule"]["_target_"] = "pipezoo.schedules.gpipe.gpipe"
    (first / "config.yaml").write_text(yaml.safe_dump(config))
    words, differences = words_of(first)
    assert differences == ["differs   schedule=1f1b is what conf/ says today; it was gpipe, and is again"]
    assert words[-1] == "schedule=gpipe"


def test_trust_does_not_come_from_a_folder(first):
    file = first / ".hydra" / "overrides.yaml"
    file.write_text(file.read_text() + "- trust=theirs\n- debug=true\n")
    assert words_of(first)[0] == list(SMALL)


def test_a_run_with_yaml_files_of_its_own_asks_for_them(first):
    hydra = yaml.safe_load((first / ".hydra" / "hydra.yaml").read_text())
    hydra["hydra"]["runtime"]["config_sources"].append(
        {"path": "/x/conf", "schema": "file", "provider": "command-line"}
    )
    hydra["hydra"]["runtime"]["choices"]["model"] = "mine"
    (first / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
    with pytest.raises(ConfigError, match=r"ran with your own YAML files \(model=mine\), .* --config-dir /x/conf"):
        words_of(first)


def test_an_order_that_is_gone_is_read_from_the_folder(first):
    for name in ("config.yaml", ".hydra/config.yaml"):
        config = yaml.safe_load((first / name).read_text())
        config["schedule"] = {"_target_": "pipezoo.schedules.csv.csv", "file": "gone.csv"}
        (first / name).write_text(yaml.safe_dump(config))
    hydra = yaml.safe_load((first / ".hydra" / "hydra.yaml").read_text())
    hydra["hydra"]["runtime"]["choices"]["schedule"] = "csv"
    (first / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
    file = first / ".hydra" / "overrides.yaml"
    file.write_text(file.read_text() + "- schedule=csv\n- schedule.file=gone.csv\n")
    words, differences = words_of(first)
    assert f"schedule.file='{first}/schedule.csv'" in words
    assert "schedule.file=gone.csv" not in words
    assert f"differs   schedule.file=gone.csv is gone; what ran is read from {first}/schedule.csv" in differences


def test_a_folder_without_a_run_is_one_line(cli, tmp_path):
    ended = cli("nowhere", module="pipezoo.rerun")
    assert ended.code == 2
    assert len(ended.error_lines) == 1
    (tmp_path / "sweep" / "0").mkdir(parents=True)
    (tmp_path / "sweep" / "0" / "config.yaml").write_text("{}")
    with pytest.raises(ConfigError, match="it is a sweep, run one of its runs again: 0"):
        words_of(tmp_path / "sweep")


def test_an_old_folder_needs_nothing_beside_it(cli, first, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shutil.move(first, tmp_path / "elsewhere" / "moved")
    ended = cli("moved", module="pipezoo.rerun", cwd=tmp_path / "elsewhere")
    assert ended.code == 0
    assert "bit for bit" in ended.out


@pytest.mark.parametrize(
    ("before", "after", "lines", "same"),
    [
        ({"losses": [1.0]}, {"losses": [1.0]}, ["losses    the same in all 1 steps, bit for bit", "verified  None, as then"], True),
        (
            {"losses": [1.0, 0.5], "verified": "exact", "versions": {"torch": "2.11"}},
            {"losses": [1.0, 0.25], "verified": "close", "versions": {"torch": "2.13"}},
            [
                "versions  torch 2.11 then, 2.13 now",
                "losses    differ from step 1 on: 0.5 then, 0.25 now",
                "verified  exact then, close now",
            ],
            False,
        ),
        ({"losses": [1.0]}, {"losses": [1.0, 2.0]}, ["losses    of 1 steps then, of 2 now", "verified  None, as then"], False),
        ({"losses": []}, {"losses": []}, ["losses    differ from step 0 on: none were written", "verified  None, as then"], False),
    ],
)  # fmt: skip
def test_what_came_out_differently_is_said(before, after, lines, same):
    assert compare(before, after) == (lines, same)


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.1, 1e-8, "a b", "it's", "a,b", "", "1", "null", [1, "a"], {"a": 1}, [], "back\\slash", "${x}"],
)
def test_a_value_survives_the_command_line(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(f"key={literal(value)}")
    assert override.value() == value


def test_leaves_are_the_ends_of_a_config():
    assert dict(leaves({"a": {"b": 1, "c": [2]}, "d": {}})) == {"a.b": 1, "a.c": [2], "d": {}}
