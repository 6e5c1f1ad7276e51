"""``pz.run``, ``pz.open_run`` and ``pz.open_sweep``: the command line as a call."""

from __future__ import annotations

import signal
import sys

import pytest

import pipezoo as pz
from tests.support.run_folders import run_folder

SIMULATE = ("simulate", "stages=4", "microbatches=8")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_it_is_the_run_that_the_command_line_makes(cli, tmp_path):
    run = pz.run(*SIMULATE, "schedule=zbv")
    ended = cli(*SIMULATE, "schedule=zbv", "hydra.run.dir=typed")

    assert ended.code == 0, ended.err
    typed = pz.open_run(tmp_path / "typed")
    assert run.result["prediction"] == typed.result["prediction"]
    assert run.result["config_hash"] == typed.result["config_hash"]
    assert run.config == typed.config
    assert {path.name for path in run.folder.iterdir()} == {path.name for path in typed.folder.iterdir()}
    assert run.overrides == ["task=simulate", *SIMULATE[1:], "schedule=zbv"]


def test_a_run_is_repeated_from_its_folder(cli, tmp_path):
    run = pz.run(*SIMULATE, folder="mine")

    ended = cli("rerun", "mine", "hydra.run.dir=again")

    assert ended.code == 0, ended.err
    assert pz.open_run("again").result["prediction"] == run.result["prediction"]


def test_it_trains_and_says_nothing_unless_somebody_listens(capfd, no_process_left):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    heard: list[str] = []

    quiet = pz.run("model=multi_mlp", "model.d_hid=16", "stages=2", "steps=2")
    loud = pz.run("model=multi_mlp", "model.d_hid=16", "stages=2", "steps=2", log=heard.append)

    assert (quiet.verified, quiet.losses) == ("exact", loud.losses)
    assert capfd.readouterr() == ("", "")
    assert any(line.startswith("verified  exact") for line in heard)
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("stages=four",), "stages=four: must be an int"),
        (("modle=gpt",), "modle=gpt: unknown key (did you mean model?)"),
        (("-m", "stages=2"), "overrides=-m: must be a word like stages=4; options are arguments of pz.run"),
        ((3,), "overrides=3: must be a word like stages=4"),
        (("stages=2,4",), "stages=2,4: several values need -m"),
    ],
)
def test_what_cannot_be_run_is_raised_and_leaves_nothing(words, text, tmp_path):
    with pytest.raises(pz.ConfigError) as refused:
        pz.run(*words)

    assert str(refused.value).startswith(text)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_run_that_fails_is_raised_with_its_folder(no_process_left):
    with pytest.raises(pz.PipezooError, match="SIGKILL") as raised:
        pz.run("model=multi_mlp", "model.d_hid=16", "stages=2", "steps=2", "fault=kill")

    run = pz.open_run(raised.value.folder)
    assert (raised.value.exit_code, run.status, run.result["exit_code"]) == (4, "failed", 4)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(pz.ConfigError, match="holds no run"):
        pz.open_run(tmp_path)
    with pytest.raises(pz.ConfigError, match="holds no sweep"):
        pz.open_sweep(tmp_path)


def test_a_sweep_is_a_table_and_its_runs(tmp_path, monkeypatch):
    for place, stages in enumerate((2, 4)):
        run_folder(tmp_path / str(place), stages)

    sweep = pz.open_sweep(tmp_path)

    assert [row["stages"] for row in sweep.rows] == ["2", "4"]
    assert repr(sweep) == f"Sweep('{tmp_path}', 2 runs, 2 ok)"
    assert [run.overrides[0] for run in sweep] == ["stages=2", "stages=4"]
    assert sweep._repr_html_().startswith("<table>")
    pandas = pytest.importorskip("pandas")
    assert sweep.to_dataframe().equals(pandas.DataFrame(sweep.rows))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(pz.ConfigError, match="to_dataframe: needs pandas"):
        sweep.to_dataframe()
