"""The command line as a person meets it: what it prints, how it ends, what it leaves behind."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import pipezoo
from pipezoo.cli.main import respell
from pipezoo.config.compose import trusted_by
from pipezoo.config.overrides import config_dirs
from pipezoo.experiment.allowlist import Allowlist
from tests.support.command import Command

SMALL = ("model=multi_mlp", "model.d_hid=8", "steps=2")
SMALLEST = (*SMALL, "stages=1", "verify=false")  # one rank, compared with nothing


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        (["verify", "stages=2"], ["task=verify", "stages=2"]),
        (["plan", "-m", "stages=2,4"], ["-m", "task=plan", "stages=2,4"]),
        (["-m", "plan", "stages=2,4"], ["-m", "task=plan", "stages=2,4"]),
        (["a=1", "--config-dir", "conf", "b=2"], ["--config-dir", "conf", "a=1", "b=2"]),
        (["a=1", "--cfg", "job", "-p", "model", "b"], ["--cfg", "job", "-p", "model", "a=1", "b"]),
        (["--info", "a=1"], ["--info", "a=1"]),
        (["stages=2", "verify=true"], ["stages=2", "verify=true"]),
        (["+experiment=x", "experiment=y"], ["experiment=x", "experiment=y"]),
        ([], []),
    ],
)
def test_the_first_word_may_be_a_task_and_experiments_are_chosen_in_both_ways(typed, taken):
    assert respell(typed) == taken


@pytest.mark.parametrize(
    ("words", "packages", "folders"),
    [
        (["trust=theirs"], ["theirs"], []),
        (["trust=[theirs.nets, others]"], ["theirs.nets", "others"], []),
        (["+trust=theirs"], ["theirs"], []),
        (["--config-dir", "conf"], [], ["conf"]),
        (["--config-dir=conf"], [], ["conf"]),
        (["-cd", "conf"], [], ["conf"]),
        (["trust=[]"], [], []),
        (["trust=null"], [], []),
        (["trust='theirs'", 'trust="others"'], ["theirs", "others"], []),
        (["-m", "trust=theirs,others"], ["theirs", "others"], []),
        (["model.trust=theirs"], [], []),
    ],
)
def test_trust_is_read_from_the_command_line(words, packages, folders):
    assert trusted_by(words) == Allowlist(tuple(packages), tuple(str(Path(name).absolute()) for name in folders))


def test_a_config_folder_is_found_in_every_spelling(tmp_path):
    for words in (["--config-dir", "conf"], ["--config-dir=conf"], ["-cd", "conf"], ["-cd=conf"]):
        assert [str(path) for path in config_dirs(words)] == ["conf"]


def test_help_names_every_group_and_every_key(cold_cli):
    ended = cold_cli("--help")
    assert ended.code == 0
    assert ended.err == ""
    for word in ("model: ", "schedule: ", "zbv", "example_code", "microbatches: null  # ", "dtype: float32  # "):
        assert word in ended.out
    assert ended.seconds < 10.0


def test_the_version_is_ours(cli):
    ended = cli("--version")
    assert (ended.code, ended.out, ended.err) == (0, f"pipezoo {pipezoo.__version__}\n", "")


class Registers(Command):
    """Has something to run at exit, as trackers, profilers and coverage have."""

    def _main(self) -> None:
        atexit.register(print, "at exit", flush=True)
        super()._main()


def test_what_was_registered_to_run_at_exit_runs_once_and_last(tmp_path):
    ended = Registers(tmp_path, (*SMALLEST, "hydra.run.dir=here")).start().wait()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines().count("at exit") == 1  # of the command, and of no rank
    assert ended.out.splitlines()[-1] == "at exit"


def test_a_second_sweep_in_a_process_does_not_see_the_first(tmp_path, monkeypatch):
    from pipezoo.cli.main import command

    monkeypatch.chdir(tmp_path)
    words = ["simulate", "ranks=2", "microbatches=2"]
    assert command([*words, "-m", "schedule=1f1b,gpipe", "hydra.sweep.dir=first"]) == 0
    (tmp_path / "first").rename(tmp_path / "away")
    assert command([*words, "hydra.run.dir=run"]) == 0
    assert not (tmp_path / "first").exists()


def test_hydras_own_questions_are_answered(cli):
    job = cli("--cfg", "job", "--resolve", "-p", "model", "stages=5")
    assert (job.code, yaml.safe_load(job.out)["splits"]) == (0, 5)
    assert "1f1b" in cli("--info", "defaults").out


def test_a_reader_that_has_seen_enough_is_no_error(environment, tmp_path):
    command = f"{sys.executable} -m pipezoo --help | head -1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ended.returncode in (0, 141), ended.stderr) == (True, "")


def test_tab_completion_answers_at_once(environment, tmp_path):
    script = tmp_path / "pipezoo"
    script.write_text("import sys\nfrom pipezoo.cli.main import main\nsys.exit(main())\n")
    typed = {"COMP_LINE": "pipezoo schedule=z", "COMP_POINT": "18", "COMP_CWORD": "1"}
    command = [sys.executable, script, "-sc", "query=bash"]
    began = time.monotonic()
    ended = subprocess.run(command, cwd=tmp_path, env={**environment, **typed}, capture_output=True, text=True)
    assert "schedule=zbv" in ended.stdout.split()
    assert time.monotonic() - began < 3.0


def test_an_unknown_option_is_a_usage_error(cli):
    ended = cli("--nope")
    assert ended.code == 2
    assert ended.error_lines[-1].endswith("error: unrecognized arguments: --nope")


@pytest.mark.parametrize("command", ["report", "rerun"])
def test_commands_that_read_folders_explain_themselves_at_once(cold_cli, command):
    for ended in (cold_cli(command, "--help"), cold_cli("--help", module=f"pipezoo.{command}")):
        assert ended.code == 0
        assert ended.out.startswith("usage: ")
        assert ended.seconds < 3.0


def test_a_run_leaves_its_config_its_result_and_code_0(cli, tmp_path):
    ended = cli(*SMALL, "hydra.run.dir=here", "seed=3")
    assert (ended.code, ended.err) == (0, "")
    assert "verified  exact" in ended.out
    result = json.loads((tmp_path / "here" / "result.json").read_text())
    assert (result["status"], result["verified"], len(result["losses"])) == ("ok", "exact", 2)
    config = yaml.safe_load((tmp_path / "here" / "config.yaml").read_text())
    assert (config["model"]["n_layers"], config["data"]["d_hid"], config["seed"]) == (4, 8, 3)
    assert yaml.safe_load((tmp_path / "here" / ".hydra" / "overrides.yaml").read_text()) == [*SMALL, "seed=3"]
    assert (tmp_path / "here" / ".hydra" / "hydra.yaml").is_file()
    assert not (tmp_path / "outputs").exists()


def test_runs_that_start_together_have_folders_of_their_own(start, tmp_path):
    runs = [start(*SMALL, "stages=2", f"seed={seed}") for seed in range(3)]
    assert [run.wait().code for run in runs] == [0, 0, 0]
    results = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/*/result.json")]
    assert sorted((result["seed"], result["verified"]) for result in results) == [(s, "exact") for s in range(3)]


def test_a_folder_that_holds_a_run_is_not_written_over(cli, tmp_path):
    assert cli(*SMALLEST, "hydra.run.dir=here").code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "here").rglob("*") if path.is_file()}
    ended = cli(*SMALLEST, "seed=1", "hydra.run.dir=here")
    assert ended.code == 6
    folder = tmp_path / "here"
    assert ended.error_lines == [
        f"error: hydra.run.dir={folder}: already holds a run; choose a folder without result.json"
    ]
    assert {path: path.read_bytes() for path in (tmp_path / "here").rglob("*") if path.is_file()} == before


def test_a_folder_whose_run_was_refused_is_free(cli, tmp_path):
    words = ("model=model_with_param_alias", "stages=4", "hydra.run.dir=here", "model.d_hid=8")
    assert cli(*words).code == 2
    refused = json.loads((tmp_path / "here" / "result.json").read_text())
    assert (refused["status"], refused["exit_code"]) == ("failed", 2)
    assert refused["error"].startswith("stages=4: ")
    assert cli(*SMALLEST, "hydra.run.dir=here").code == 0


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.isdir("/proc/self"), reason="needs a place that nobody can write")
def test_a_folder_that_cannot_be_written_is_one_line_and_code_6(cli):
    ended = cli(*SMALL, "hydra.run.dir=/proc/pipezoo")
    assert ended.code == 6
    assert len(ended.error_lines) == 1
    assert "/proc/pipezoo" in ended.err


def test_a_users_own_model_runs_from_a_folder_of_yaml_files(cli, tmp_path):
    (tmp_path / "their_nets.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n    def __init__(self, width: int):\n"
        "        super().__init__(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))\n"
    )
    (tmp_path / "their_conf" / "model").mkdir(parents=True)
    (tmp_path / "their_conf" / "model" / "mine.yaml").write_text("_target_: their_nets.Net\nwidth: 8\n")
    words = ("model=mine", "data.d_hid=8", "split=modules", "stages=2", "steps=2")
    ended = cli(*words, "--config-dir", "their_conf")
    assert (ended.code, ended.err) == (0, "")
    assert "verified  exact" in ended.out


def test_a_signal_during_the_start_is_quiet_too(environment, tmp_path, no_process_left):
    command = [sys.executable, "-m", "pipezoo", *SMALLEST]
    run = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    time.sleep(0.7)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=20)
    assert run.returncode in (130, -signal.SIGINT)
    assert b"Traceback" not in err or run.returncode == -signal.SIGINT
