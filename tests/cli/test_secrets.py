"""What came from the environment is used, and written down as it was typed."""

from __future__ import annotations

import json

import pytest

from pipezoo.cli.words_of_run import words_of
from pipezoo.config.compose import resolved_config
from pipezoo.errors import ConfigError
from pipezoo.experiment.allowlist import Allowlist
from tests.support.configs import compose

GPT = ("model=gpt", "model.width=16", "model.context=8", "stages=1", "steps=2", "verify=false")


def resolved(*words):
    return resolved_config(*compose(words), Allowlist())


def test_a_value_from_the_environment_is_used_and_not_shown(monkeypatch):
    monkeypatch.setenv("WHERE", "/secret/place")
    made = resolved("data=text", "model=gpt", "data.path=${oc.env:WHERE}/texts", "resume=${data.path}", "seed=3")
    assert made.values["data"]["path"] == made.values["resume"] == "/secret/place/texts"
    assert made.shown["data"]["path"] == "${oc.env:WHERE}/texts"
    assert made.shown["resume"] == "${data.path}"
    assert (made.shown["seed"], made.shown["data"]["context"]) == (3, made.values["data"]["context"])


def test_an_error_does_not_show_it_either(monkeypatch):
    monkeypatch.setenv("WHERE", "/secret/place")
    made = resolved("resume=${oc.env:WHERE}")
    assert made.hide("resume=/secret/place: holds no run") == "resume=${oc.env:WHERE}: holds no run"
    monkeypatch.setenv("WHERE", "a")
    assert resolved("resume=${oc.env:WHERE}").hide("a manual") == "a manual"


def test_a_variable_that_is_not_set_is_one_line(monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(ConfigError) as error:
        resolved("resume=${oc.env:NOWHERE}")
    assert str(error.value) == "resume=${oc.env:NOWHERE}: environment variable 'NOWHERE' not found"


@pytest.mark.parametrize("sweep", [False, True])
def test_no_file_of_a_run_holds_it_and_rerun_still_works(cli, tmp_path, monkeypatch, environment, sweep):
    environment["SECRET"] = "open.sesame"
    monkeypatch.setenv("SECRET", "open.sesame")
    (tmp_path / "open.sesame").write_text("a text that nobody else has " * 20)
    words = (*GPT, "data.path=${oc.env:SECRET}", "hydra.job.env_copy=[SECRET]")
    where = ("-m", "seed=3,4", "hydra.sweep.dir=here") if sweep else ("hydra.run.dir=here",)
    ended = cli(*words, *where)
    assert (ended.code, ended.err, "sesame" in ended.out) == (0, "", False)
    holding = [
        path.name for path in (tmp_path / "here").rglob("*") if path.is_file() and b"sesame" in path.read_bytes()
    ]
    assert holding == []
    folder = tmp_path / "here" / "0" if sweep else tmp_path / "here"
    assert json.loads((folder / "result.json").read_text())["status"] == "ok"
    assert words_of(folder)[1] == []
