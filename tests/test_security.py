"""What SECURITY.md promises, line by line: what a folder, a config, a file and a package can and cannot do.

A hostile folder is tried as its victim would: `rerun`, `sweep.resume=`, `--config-dir`. Its code leaves a file, `pwned`.
"""

# ruff: noqa: E501  (a message stands on one line)
from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from pipezoo.cli.folder_words import is_value_of, option_alone, values_alone
from pipezoo.cli.held_nodes import AS_SHIPPED, check_nodes, held
from pipezoo.config.compose import groups, keys
from pipezoo.errors import ConfigError
from tests.conftest import REPOSITORY
from tests.support.command import Command, command
from tests.support.worlds import start_world

LOOPBACK = "0100007F"  # 127.0.0.1, as /proc/net/tcp spells it
SIMULATE = ("task=simulate", "ranks=2", "microbatches=2")
EVIL = """
from pathlib import Path
Path(PWNED).write_text("")
from torch import nn

class Net(nn.Linear):
    def __init__(self):
        super().__init__(4, 4)

def factory(*args, **kwargs):
    import logging
    return logging.NullHandler()
"""
HUBCONF = "from pathlib import Path\nPath(PWNED).write_text('')\ndef m(*args):\n    pass\n"
HUB = {"_target_": "torch.hub.load", "source": "local", "model": "m"}


@pytest.fixture
def pwned(tmp_path) -> Path:
    """The file that hostile code leaves behind; its packages lie in the working folder, where Python finds them."""
    file = tmp_path / "pwned"
    (tmp_path / "evilpkg").mkdir()
    (tmp_path / "evilpkg" / "__init__.py").write_text(EVIL.replace("PWNED", repr(str(file))))
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "hubconf.py").write_text(HUBCONF.replace("PWNED", repr(str(file))))
    yield file
    assert not file.exists(), "hostile code ran"


@pytest.fixture
def run(tmp_path):
    """``run(words)`` in ``tmp_path``, as a person types them; the command when it has ended."""

    def typed(*words: str) -> Command:
        for name in ("out", "err"):
            (tmp_path / name).unlink(missing_ok=True)
        return Command(tmp_path, words).start().wait()

    return typed


def sweep(folder: Path, **entries: list[str]) -> None:
    folder.mkdir()
    (folder / "sweep.json").write_text(json.dumps({"words": [], "hydra": [], "config_dirs": [], **entries}))


def own_yaml(folder: Path, name: str, content: object) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(("# @package _global_\n" if name.startswith("experiment") else "") + yaml.safe_dump(content))


# A folder -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    [
        "--config-dir=conf",
        "-cd",
        "--multirun",
        "+hydra.callbacks.evil={_target_:torch.hub.load}",
        "hydra/launcher=joblib",
        "hydra.job.env_set.LD_PRELOAD=x",
        "hydra.searchpath=[file:///x]",
        "++hydra.run.dir=/x",
        "~hydra.callbacks",
        "+data@hydra.callbacks.evil=text",
        "data@hydra=text",
        "+hydra@data=x",
        "experiment=../../evil",
        "model=/tmp/evil",
        "model=gpt,/tmp/evil",
        "model=choice('/tmp/evil')",
        "unknown=1",
        "",
        "= x",
        "model .x=1",
        "oc.env=1",
    ],
)
def test_a_folder_brings_values_of_known_keys_and_nothing_else(word):
    with pytest.raises(ConfigError, match=r"only the command line says this|a folder brings nothing else|leads out of"):
        values_alone([word], "folder", (*keys(), *groups()), groups())


@pytest.mark.parametrize(
    "word", ["steps=20", "+fault=kill", "~model.splits", "model=gpt", "++model.d_hid=8", "schedule=glob(*)", "+export=[torch,megatron]", "data.path='/x/../y'", "experiment=schedules", "model.act._target_=torch.nn.GELU"]
)  # fmt: skip
def test_values_of_known_keys_pass(word):
    assert values_alone([word], "folder", (*keys(), *groups()), groups()) == [word]


@pytest.mark.parametrize("word", ["trust=evilpkg", "+trust=[evilpkg]", "debug=true", "sweep.resume=x"])
def test_a_folder_brings_no_trust(word):
    assert values_alone([word, "seed=1"], "folder", (*keys(), *groups()), groups()) == ["seed=1"]


@pytest.mark.parametrize("key", ["hydra.callbacks.x", "hydra", "trust", "sweep.resume", "x", "model d", "model=1,hydra.x", "--config-dir", "+hydra.x"])  # fmt: skip
def test_a_stored_config_sets_known_keys_alone(key):
    assert not is_value_of(key, (*keys(), *groups()))


@pytest.mark.parametrize(("group", "option"), [("hydra/launcher", "joblib"), ("model", "../x"), ("model", "/x"), ("--cd", "x"), ("model", "a b"), ("+hydra.x", "y")])  # fmt: skip
def test_a_stored_choice_is_an_option_of_a_known_group(group, option):
    with pytest.raises(ConfigError):
        option_alone(group, option, "folder", groups())


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ({"words": ["trust=evilpkg", "model._target_=evilpkg.Net", "seed=1,2"]}, "model._target_=evilpkg.Net: is not allowed; add trust=evilpkg"),
        ({"words": ["--config-dir=evil", "seed=1,2"]}, "'--config-dir=evil': only the command line says this, never a folder"),
        ({"words": ["+hydra.callbacks.evil={_target_:evilpkg.factory}", "seed=1,2"]}, "only the command line says this"),
        ({"words": ["seed=1,2"], "hydra": ["+hydra.callbacks.evil={_target_:evilpkg.factory}"]}, "was started with hydra.callbacks.evil, which count when they are typed again"),
        ({"words": [*SIMULATE, "split.split_spec={_target_:pipezoo.results.run_dir.write_text,path:pwned,text:x}", "task=train", "model=multi_mlp", "split=annotated"]}, "split.split_spec._target_=pipezoo.results.run_dir.write_text: is not allowed there"),
    ],
)  # fmt: skip
def test_going_on_with_a_strangers_sweep_runs_no_code(run, pwned, tmp_path, note, said):
    sweep(tmp_path / "D", **note)
    ended = run("-m", "sweep.resume=D")
    assert ended.code == 2
    assert said in ended.err + ended.out


@pytest.fixture
def stranger(run, tmp_path) -> Path:
    """The folder of a simulation, before a stranger has changed it."""
    assert run(*SIMULATE, "hydra.run.dir=D").code == 0
    return tmp_path / "D"


@pytest.mark.parametrize(
    "words",
    [
        ["+hydra.callbacks.evil={_target_:torch.hub.load,repo_or_dir:hub,source:local,model:m}"],
        ["hydra.searchpath=[file://evil]", "experiment=evil"],
        ["--config-dir", "evil", "+experiment=evil"],
        ["experiment=../../../../../../../../../../tmp/evil"],
        ["schedule._target_=pipezoo.results.run_dir.claim", "+schedule.folder=pwned"],
        ["cost._target_=pipezoo.results.run_dir.MetricsFile", "+cost.path=pwned"],
        ["cost._target_=pipezoo.cli.main.command", "+cost.words=[report]"],
    ],
)
def test_repeating_a_strangers_run_runs_no_code(run, stranger, pwned, tmp_path, words):
    own_yaml(
        tmp_path / "evil", "experiment/evil.yaml", {"hydra": {"callbacks": {"evil": HUB | {"repo_or_dir": "hub"}}}}
    )
    (stranger / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([*SIMULATE, *words]))
    ended = run("rerun", "D")
    assert (ended.code, len(ended.err.splitlines())) == (2, 1), ended.err


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.yaml", lambda content: content | {"hydra": {"callbacks": {"evil": HUB}}}),
        ("config.yaml", lambda content: content | {"+hydra.job.env_set.A": "b"}),
        ("config.yaml", lambda content: content | {"schedule": {"_target_": "evilpkg.factory"}}),
        ("config.yaml", lambda content: [1, 2]),
        (".hydra/hydra.yaml", lambda content: {"hydra": {"runtime": {"choices": {"schedule": "../../evil"}}}}),
        (".hydra/hydra.yaml", lambda content: {}),
        (".hydra/overrides.yaml", lambda content: {"a": 1}),
    ],
)
def test_no_other_file_of_a_strangers_run_brings_code(run, stranger, pwned, file, change):
    content = yaml.safe_load((stranger / file).read_text())
    (stranger / file).write_text(yaml.safe_dump(change(content)))
    ended = run("rerun", "D")
    assert (ended.code, len(ended.err.splitlines())) == (2, 1), ended.err


# A config ------------------------------------------------------------------------------------------------------------


def test_hydras_own_nodes_are_as_shipped(tmp_path):
    """The constant that the quick look compares with is what Hydra composes today."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from pipezoo.experiment.registry import conf_dir

    for words in ([], ["experiment=schedules"], ["task=plan", "model=gpt"]):
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("config", words, return_hydra_config=True)
        node = OmegaConf.to_container(cfg.hydra, resolve=False)
        assert held(node) == AS_SHIPPED
        check_nodes(node, lambda: pytest.fail("nothing differs"), ())


@pytest.mark.parametrize(
    ("node", "key"),
    [
        ({"callbacks": {"evil": HUB | {"repo_or_dir": "hub"}}}, "callbacks"),
        ({"launcher": {"_target_": "evilpkg.factory"}}, "launcher"),
        ({"sweeper": {"_target_": "evilpkg.factory"}}, "sweeper"),
        ({"job_logging": {"handlers": {"h": {"()": "evilpkg.factory"}}, "root": {"handlers": ["h"]}}}, "job_logging"),
        ({"hydra_logging": {"handlers": {"h": {"()": "evilpkg.factory"}}, "root": {"handlers": ["h"]}}}, "hydra_logging"),
        ({"job": {"env_set": {"LD_PRELOAD": "evil.so"}}}, "job.env_set"),
        ({"job": {"env_copy": ["HOME"]}}, "job.env_set"),
        ({"job": {"chdir": True}}, "job.chdir"),
        ({"output_subdir": "../.."}, "output_subdir"),
    ],
)  # fmt: skip
def test_hydra_runs_nothing_that_a_yaml_file_says(run, pwned, tmp_path, node, key):
    own_yaml(tmp_path / "evil", "experiment/evil.yaml", {"hydra": node})
    multirun = ["-m", "seed=1,2"] if key in ("launcher", "sweeper") else []  # a run of its own has none
    ended = run("--config-dir", "evil", *multirun, "experiment=evil", *SIMULATE)
    assert ended.code == 2
    assert ended.err == f"error: hydra.{key}: is only taken from the command line, never from a file\n"


def test_a_job_of_a_sweep_is_held_as_the_sweep_is(run, pwned, tmp_path):
    own_yaml(tmp_path / "evil", "experiment/evil.yaml", {"hydra": {"job": {"env_set": {"A": "b"}}}})
    ended = run("--config-dir", "evil", "-m", "experiment=schedules,evil", *SIMULATE)
    assert ended.code == 2
    assert "hydra.job.env_set: is only taken from the command line, never from a file" in ended.err
    own_yaml(
        tmp_path / "evil", "experiment/evil.yaml", {"hydra": {"sweeper": {"params": {"hydra.job.env_set.A": "1,2"}}}}
    )
    ended = run("--config-dir", "evil", "-m", "experiment=evil", *SIMULATE)
    assert (
        ended.err == "error: hydra.sweeper.params.hydra.job.env_set.A: a file does not sweep over what is Hydra's own\n"
    )


def test_what_a_person_types_of_hydras_own_counts(run, tmp_path):
    own_yaml(tmp_path / "mine", "experiment/mine.yaml", {"hydra": {"sweeper": {"params": {"seed": "1,2"}}}})
    ended = run(
        "--config-dir", "mine", "-m", "experiment=mine", "+hydra.job.env_set.A=b", "hydra.sweep.dir=s", *SIMULATE
    )
    assert ended.code == 0, ended.err
    assert {path.name for path in (tmp_path / "s").iterdir() if path.is_dir()} == {"0", "1"}


def test_a_config_folder_trusts_its_own_module_and_says_so(run, tmp_path):
    own_yaml(tmp_path / "my_conf", "schedule/mine.yaml", {"_target_": "my_orders.order"})
    (tmp_path / "my_orders.py").write_text(
        "from pipezoo.schedules.gpipe import gpipe\n\n\ndef order(num_ranks, num_microbatches):\n    return gpipe(num_ranks, num_microbatches)\n"
    )
    ended = run("--config-dir", "my_conf", "schedule=mine", *SIMULATE)
    assert ended.code == 0, ended.err
    assert f"trusted   my_orders is {tmp_path}/my_orders.py, by --config-dir\n" in ended.out
    ended = run(*SIMULATE)
    assert "trusted" not in ended.out


@pytest.mark.parametrize("target", ["sympy.sympify", "numpy.load", "yaml.unsafe_load", "hydra.utils.instantiate"])
def test_a_config_folder_trusts_no_package_that_is_installed(run, pwned, tmp_path, target):
    own_yaml(tmp_path / "evil", "experiment/evil.yaml", {"cost": {"_target_": target, "a": "__import__('os')"}})
    ended = run("--config-dir", "evil", "experiment=evil", *SIMULATE)
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert ended.err.startswith(f"error: cost._target_={target}: is not allowed")


def test_a_pickle_of_hydras_is_not_run(run):
    ended = run("--experimental-rerun", "config.pickle")
    assert (ended.code, ended.err) == (
        2,
        "error: --experimental-rerun: is Hydra's; here python -m pipezoo rerun . runs it again\n",
    )


# The page, and the network -------------------------------------------------------------------------------------------


def test_every_line_of_the_page_has_its_test():
    named = re.findall(r"`(test_\w+)`", (REPOSITORY / "SECURITY.md").read_text())
    tests = "\n".join(path.read_text() for path in (REPOSITORY / "tests").rglob("test_*.py"))
    assert len(named) > 20
    assert [name for name in named if f"def {name}(" not in tests] == []


def test_a_run_listens_on_loopback_alone(tmp_path):
    running = command(tmp_path, "stages=2", "steps=100000", "executor=torch")
    try:
        seen: set[str] = set()
        until = time.monotonic() + 20
        while len(running.processes()) < 3 and time.monotonic() < until:
            time.sleep(0.02)
        while len(seen) < 2 and time.monotonic() < until:
            seen |= listening(running.processes())
            time.sleep(0.02)
        assert {address.rpartition(":")[0] for address in seen} <= {LOOPBACK}
        assert seen, "gloo listens once the ranks meet"
    finally:
        for pid in running.processes():
            os.kill(pid, signal.SIGKILL)
        os.waitpid(running.pid, 0)


def test_a_world_on_one_machine_listens_on_loopback_alone(tmp_path, warm_parent, environment):
    started = start_world(warm_parent, environment, tmp_path, ("stages=2", "steps=100000"), 2)
    try:
        seen: set[str] = set()
        until = time.monotonic() + 30
        while len(seen) < 3 and time.monotonic() < until:  # the store, the lines, gloo
            groups = [process.pid for process in started.processes]
            seen |= listening(of_groups(groups))
            time.sleep(0.02)
        assert {address.rpartition(":")[0] for address in seen} <= {LOOPBACK}
        assert len(seen) >= 3
    finally:
        for process in started.processes:
            process.send_signal(signal.SIGKILL)
        started.wait()


def of_groups(groups: list[int]) -> list[int]:
    found = []
    for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
        with suppress(ProcessLookupError):
            found += [pid] if os.getpgid(pid) in groups else []
    return found


def listening(pids: list[int]) -> set[str]:
    """The addresses, in hexadecimal, that these processes listen at."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                inodes.add(os.readlink(link).removeprefix("socket:[").rstrip("]"))
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and row[9] in inodes}
