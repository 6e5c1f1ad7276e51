"""From a composed config to an experiment: what each word means, and whose code it may name."""

from __future__ import annotations

import os
import sys
from itertools import groupby, zip_longest
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pipezoo.config import compose as config
from pipezoo.config.compose import compose, load, plain_config
from pipezoo.errors import ConfigError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.experiment import Experiment
from pipezoo.experiment.registry import conf_dir
from pipezoo.launch import Processes
from tests.support import configs

OPTIONS = [
    f"{folder.name}={file.stem}"
    for folder in sorted(conf_dir().iterdir())
    if folder.is_dir() and folder.name != "experiment"
    for file in sorted(folder.glob("*.yaml"))
]
# Composing takes a tenth of a second: what chooses other groups is composed alone, of the rest one of each at a time.
CHOOSES = ("model", "data", "split", "loss", "topology")
BY_GROUP = {key: [*found] for key, found in groupby(OPTIONS, lambda option: option.partition("=")[0])}
TOGETHER = [(option,) for group in CHOOSES for option in BY_GROUP[group]] + [
    tuple(filter(None, row))
    for row in zip_longest(*(found for group, found in BY_GROUP.items() if group not in CHOOSES))
]
EXPERIMENTS = sorted(file.stem for file in (conf_dir() / "experiment").glob("*.yaml"))
NEEDS = {
    "schedule=csv": "schedule.file=order.csv",
    "cost=file": "cost.file=cost.yaml",
    "precision=bf16_master": "dtype=bfloat16",
}


def experiment(*words: str, config_dir: Path | None = None, trust: Allowlist | None = None) -> Experiment:
    cfg, choices = configs.compose(words, config_dir)
    return load(cfg, choices, trust or Allowlist(folders=(str(config_dir),) if config_dir else ()))


def test_the_defaults_are_those_of_the_readme():
    default = experiment()
    names = [default.model_name, default.data_name, default.split_name, default.loss_name, default.optimizer_name]
    assert names == ["example_code", "regression", "marked", "mse", "sgd"]
    assert (default.schedule_name, default.launch_name, default.task) == ("1f1b", "processes", "train")
    assert (default.num_stages, default.num_ranks, default.num_microbatches, default.batch_size) == (None,) * 4
    assert (default.steps, default.seed, default.dtype, default.device) == (10, 0, "float32", "cpu")
    assert default.launch == Processes(threads=None, start_method=None, step_timeout=60.0, first_step_timeout=120.0)


@pytest.mark.parametrize(
    "words",
    [
        ("model=gpt", "model.width=16", "steps=3"),
        ("task=simulate", "ranks=4", "schedule=zbv"),
        ("optimizer=adamw", "optimizer.betas=[0.9,0.8]", "+loss.x=1", "launch=virtual"),
        ("experiment=schedules", "batch_size=8", "batch_size=16"),
    ],
)
def test_what_tests_lay_over_chosen_options_is_what_hydra_composes(words):
    (quick, quick_choices), (whole, choices) = configs.compose(words), compose(words)
    assert OmegaConf.to_container(quick) == OmegaConf.to_container(whole)
    assert quick_choices == choices


def test_an_experiment_cannot_be_changed():
    with pytest.raises(AttributeError):
        experiment().steps = 3  # type: ignore[misc]


@pytest.mark.parametrize("options", TOGETHER, ids=" ".join)
def test_every_file_in_conf_makes_an_experiment(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("order.csv").write_text("0F0,0B0\n")
    own = [NEEDS[option] for option in options if option in NEEDS]
    made = experiment(*options, *own, "task=simulate", *_with_a_model_that_fits(options[0]))
    for option in options:
        _is_made(made, option)


def test_no_file_in_conf_is_left_out():
    assert sorted(option for options in TOGETHER for option in options) == sorted(OPTIONS)


def _is_made(made, option):
    group, _, choice = option.partition("=")
    several = {"export": made.exports, "tracker": made.trackers}
    part = several[group][0] if group in several else getattr(made, group)
    assert part is not None or option == "lr_schedule=none"
    assert choice == (made.launch_name if group == "launch" else getattr(part, "choice", choice))


def _with_a_model_that_fits(option: str) -> list[str]:
    models = {"data=text": "gpt", "data=tokens": "gpt", "data=images": "unet"}
    return [f"model={models[option]}", option] if option in models else []


@pytest.mark.parametrize("option", [option for option in OPTIONS if not option.startswith(("experiment", "launch"))])
def test_every_key_of_every_file_in_conf_is_explained(option):
    group, _, choice = option.partition("=")
    lines = (conf_dir() / group / f"{choice}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    unexplained = [
        line
        for line in lines
        if ":" in line and "#" not in line and not line.lstrip().startswith(("_target_", "- ", "#"))
    ]
    assert [line for line in unexplained if line.rstrip() not in ("defaults:", "stages:", "p2p:")] == []


def test_every_key_of_the_main_config_is_explained():
    text = (conf_dir() / "config.yaml").read_text().partition("hydra:\n  run:")[0]
    keys = [line for line in text.splitlines() if line and not line.startswith(("#", " ", "defaults"))]
    assert len(keys) > 15
    assert [line for line in keys if "  # " not in line] == []


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("spelling", ["experiment={}", "+experiment={}"])
def test_every_experiment_composes_in_both_spellings(name, spelling):
    from pipezoo.cli.main import respell

    cfg, choices = compose(respell([spelling.format(name)]))
    assert choices["experiment"] == name
    assert load(cfg, choices, Allowlist())


def test_the_command_line_wins_over_an_experiment_and_that_over_the_files():
    assert experiment().steps == 10
    assert experiment("experiment=gpt_on_text").steps == 50
    assert experiment("experiment=gpt_on_text", "steps=3").steps == 3
    assert experiment("experiment=gpt_on_text", "schedule=zbv").schedule_name == "zbv"


def test_a_model_chooses_its_own_data_and_the_command_line_still_wins():
    assert experiment("model=gpt").data_name == "text"
    assert experiment("model=gpt").loss_name == "token_cross_entropy"
    assert experiment("model=gpt", "loss=mse", "optimizer=sgd").optimizer_name == "sgd"
    assert experiment("optimizer=sgd", "model=gpt").optimizer_name == "sgd"


@pytest.mark.parametrize(
    ("words", "splits"),
    [
        ("", 2),
        ("stages=5", 5),
        ("ranks=3", 3),
        ("ranks=3 schedule=zbv", 6),
        ("ranks=2 stages=6 schedule=interleaved_1f1b", 6),
        ("model.splits=7", 7),
        ("schedule=csv schedule.file=three.csv", 3),
    ],
)
def test_a_model_follows_the_number_of_stages_that_is_asked_for(words, splits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("three.csv").write_text("0F0,0B0\n1F0,1B0\n2F0,2B0\n")
    assert experiment(*words.split()).model.arguments["splits"] == splits


@pytest.mark.parametrize(("words", "layers"), [("", 4), ("stages=2", 4), ("stages=6", 6), ("ranks=4 schedule=zbv", 8)])
def test_a_model_has_at_least_as_many_layers_as_stages(words, layers):
    assert experiment("model=multi_mlp", *words.split()).model.arguments["n_layers"] == layers


def test_the_config_hash_is_of_what_determines_the_numbers():
    same = [(), ("debug=true",), ("launch.threads=1",), ("verify=false",), ("task=verify",), ("record_steps=2",)]
    assert len({experiment(*words).config_hash for words in same}) == 1
    other = [(), ("seed=1",), ("model.d_hid=8",), ("schedule=gpipe",), ("steps=3",), ("optimizer.lr=1",), ("stages=2",)]
    assert len({experiment(*words).config_hash for words in other}) == len(other)


def test_simulating_needs_no_torch(cli):
    code = (
        "import sys; from pipezoo.config.compose import compose, load; "
        "from pipezoo.experiment.allowlist import Allowlist; "
        "load(*compose(['task=simulate', 'ranks=4', 'schedule=zbv']), Allowlist()); assert 'torch' not in sys.modules"
    )
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], cwd=conf_dir().parent, env=os.environ).returncode == 0


def test_what_is_written_down_is_resolved():
    cfg, _ = compose(["model=gpt"])
    plain = plain_config(cfg)
    assert plain["data"]["context"] == plain["model"]["context"] == 64


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A user's package and folder of YAML files."""
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(
        "import os\nfrom os import system as run\nfrom pathlib import Path\nimport torch\n"
        "from torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self, width: int, name: str = 'n'):\n        super().__init__()\n"
        "        self.width = width\n\n\n"
        "def data(batch_size, seed):\n    return None\n"
    )
    (tmp_path / "conf" / "model").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("their_package", "their_package.nets"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def write(target: str, keys: str = "width: 4") -> Path:
        (tmp_path / "conf" / "model" / "mine.yaml").write_text(f"_target_: {target}\n{keys}\n")
        return tmp_path / "conf"

    return write


def test_a_users_own_model_comes_with_a_config_folder_of_theirs(theirs):
    made = experiment("model=mine", "data=regression", "data.d_hid=4", config_dir=theirs("their_package.nets.Net"))
    assert type(made.model()).__name__ == "Net"
    assert made.model().width == 4


def test_a_users_own_model_can_be_trusted_by_name(theirs):
    theirs("their_package.nets.Net")
    target = "model._target_=their_package.nets.Net"
    words = (target, "~model._stages_", "~model.splits", "~model.d_hid", "+model.width=3", "data.d_hid=4")
    with pytest.raises(ConfigError, match="is not allowed; add trust=their_package to the command line if it is yours"):
        experiment(*words)
    assert experiment(*words, "trust=their_package", trust=Allowlist(("their_package",))).model().width == 3
    assert experiment(*words, "trust=[their_package.nets]", trust=Allowlist(("their_package.nets",))).model().width == 3


def test_trust_from_a_file_is_refused(theirs):
    folder = theirs("their_package.nets.Net")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "sly.yaml").write_text("# @package _global_\ntrust: [their_package]\n")
    with pytest.raises(ConfigError) as error:
        load(*compose(["experiment=sly"], folder), Allowlist())
    assert str(error.value) == "trust=their_package: is only taken from the command line, never from a file"


UNTRUSTED = [
    "os.system",
    "posix.system",
    "builtins.open",
    "builtins.eval",
    "pathlib.Path.write_text",
    "subprocess.run",
    "torch.load",
    "torch.hub.load",
    "torch.Tensor",
    "torch.serialization.load",
    "torch.nn.functional.relu",
    "torch.nn.modules.module.Tensor",
    "torch.nn.modules.container.OrderedDict",
    "their_package.nets.run",
    "their_package.nets.Path",
    "their_package.nets.os.system",
    "their_package.nets.torch.load",
    "their_package.nets.torch.hub.load",
    "pipezoo.results.run_dir.os.system",
    "pipezoo.results.run_dir.Path.write_text",
]


@pytest.mark.parametrize("group", ["model", "data"])
def test_code_that_nobody_can_trust_is_refused_under_every_name(theirs, group):
    folder = theirs("their_package.nets.Net")
    cfg, choices = compose(["model=mine", "data.d_hid=4", f"{group}._target_=their_package.nets.Net"], folder)
    for target in UNTRUSTED:
        cfg[group]["_target_"] = target
        with pytest.raises(ConfigError) as error:
            load(cfg, choices, Allowlist(folders=(str(folder),)))
        assert str(error.value).startswith(f"{group}._target_={target}: ")
        assert "allowed" in str(error.value)


@pytest.mark.parametrize(
    ("target", "keys", "message"),
    [
        ("their_package.nets.Net", "width: wide", "model.width=wide: must be an int"),
        ("their_package.nets.Net", "width: 4.0", "model.width=4.0: must be an int"),
        ("their_package.nets.Net", "width: true", "model.width=true: must be an int"),
        ("their_package.nets.Net", "wdith: 4", "model.wdith=4: unknown key (did you mean width?); valid: name, width"),
        ("their_package.nets.Net", "name: n", "model.width: is missing, and model=mine needs it"),
        (
            "their_package.nets.Ned",
            "width: 4",
            "model._target_=their_package.nets.Ned: unknown name (did you mean Net?)",
        ),
        ("their_package.net.Net", "width: 4", "model._target_=their_package.net.Net: unknown name"),
        ("their_packag.Net", "width: 4", "model._target_=their_packag.Net: there is no package their_packag"),
        (
            "their_package.nets.data",
            "width: 4",
            "model.width=4: unknown key; valid: batch_size, seed",
        ),
    ],
)
def test_what_is_wrong_with_a_users_own_model_is_said_in_one_line(theirs, target, keys, message):
    with pytest.raises(ConfigError) as error:
        experiment("model=mine", "data.d_hid=4", config_dir=theirs(target, keys)).model()
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_the_keys_of_the_command_line_are_those_of_the_main_config():
    assert {"task", "stages", "model", "schedule", "trust"} < set(config.keys())
    assert len(config.keys()) <= 30
