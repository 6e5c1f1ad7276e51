"""Which code a config may name: ours and torch's by role, the user's by trust= and by --config-dir, nothing else."""

# ruff: noqa: E501  (a message stands on one line)
from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from pipezoo.errors import ConfigError
from pipezoo.experiment.allowlist import Allowlist, resolve
from pipezoo.experiment.component import Component
from pipezoo.experiment.registry import conf_dir, registered

EVERY = sorted((group.name, name) for group in conf_dir().iterdir() for name in registered(group.name))
THEIRS = """
import functools, os
from os import system as run
from torch import nn

class Net(nn.Module):
    pass

def data(batch_size, seed):
    return None

shell = functools.partial(os.system)
"""


@pytest.fixture
def theirs(tmp_path, monkeypatch) -> Path:
    """A folder of YAML files with a module beside it and another in it, which are not on Python's path."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "beside_it.py").write_text(THEIRS)
    (tmp_path / "conf" / "within_it.py").write_text(THEIRS)
    (tmp_path / "conf" / "yaml.py").write_text(THEIRS)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path / "conf"
    for name in ("beside_it", "within_it"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("group", "target"), EVERY)
def test_what_conf_names_needs_no_trust_in_its_own_group(group, target):
    assert callable(resolve(f"{group}._target_", target, Allowlist()))


@pytest.mark.parametrize(("group", "target"), [pair for pair in EVERY if pair[1].startswith("pipezoo.")])
def test_what_conf_names_is_allowed_in_no_other_group_and_in_no_other_part(group, target):
    others = {"model", "data", "split", "schedule", "optimizer", "cost", "launch", "plan"} - {group, "loss"}
    for key in [*(f"{other}._target_" for other in others), "split.split_spec._target_", "data.x.y._target_"]:
        if not target.startswith(("pipezoo.models.", "pipezoo.losses.")) or not key.startswith("model."):
            with pytest.raises(ConfigError, match=r"is not allowed there; |is not a subclass of"):
                resolve(key, target, Allowlist())


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("model._target_", "torch.nn.Linear"),
        ("model.act._target_", "torch.nn.GELU"),
        ("model.inner._target_", "pipezoo.models.GPT"),
        ("model._target_", "pipezoo.models.MLPModule"),
        ("loss._target_", "torch.nn.CrossEntropyLoss"),
        ("loss.of._target_", "pipezoo.losses.TokenCrossEntropy"),
        ("optimizer._target_", "torch.optim.RMSprop"),
    ],
)
def test_modules_and_optimizers_are_allowed_where_they_play_a_part(key, target):
    assert resolve(key, target, Allowlist()).__name__ == target.rpartition(".")[2]


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("optimizer._target_", "torch.nn.Linear"),
        ("model._target_", "torch.optim.SGD"),
        ("data.x._target_", "torch.nn.Linear"),
        ("model.x._target_", "torch.nn.Parameter"),
        ("model._target_", "torch.nn.functional.relu"),
        ("model._target_", "torch.nn.init.torch.hub.load"),
        ("model._target_", "torch.nn.modules.module.torch.load"),
        ("model._target_", "torch.nn.utils.rnn.PackedSequence"),
        ("model._target_", "torch.nn.parallel.distributed.os.system"),
        ("model._target_", "pipezoo.models.example_code.torch.load"),
        ("model.x._target_", "pipezoo.models.nn.modules.module.OrderedDict"),
    ],
)
def test_torchs_other_code_is_refused(key, target):
    with pytest.raises(ConfigError, match=r"allowed there|unknown name|is not a subclass of"):
        resolve(key, target, Allowlist())


@pytest.mark.parametrize("package", ["os", "builtins", "pathlib", "torch", "torch.hub", "importlib.util", "pipezoo", "pipezoo.results", "hydra.utils", "omegaconf", "hydra_plugins.x"])  # fmt: skip
def test_some_code_cannot_be_trusted_at_all(package):
    with pytest.raises(ConfigError, match=f"^trust={package}: .* is never trusted$"):
        Allowlist((package,))


def test_trust_does_not_reach_a_package_with_a_similar_name():
    trust = Allowlist(("their",))
    assert trust.covers("their.nets")
    assert not trust.covers("theirs.nets")


@pytest.mark.parametrize("name", ["beside_it", "within_it"])
def test_a_config_folder_brings_the_modules_in_it_and_beside_it(theirs, name):
    trust = Allowlist(folders=(str(theirs),))
    assert resolve("model._target_", f"{name}.Net", trust).__name__ == "Net"
    assert resolve("data._target_", f"{name}.data", trust).__name__ == "data"


@pytest.mark.parametrize("target", ["run", "shell", "os.system", "nn.Linear.__init__", "Net.__subclasses__", "functools.partial"])  # fmt: skip
def test_what_a_module_of_the_users_imports_from_elsewhere_is_refused(theirs, target):
    with pytest.raises(ConfigError, match=r"leads to code of \w+.*, which is not allowed there"):
        resolve("data._target_", f"beside_it.{target}", Allowlist(folders=(str(theirs),)))


@pytest.mark.parametrize("target", ["sympy.sympify", "numpy.load", "jinja2.Template", "pytest.main"])
def test_a_config_folder_does_not_trust_the_packages_that_are_installed(theirs, target):
    root = target.partition(".")[0]
    with pytest.raises(ConfigError) as error:
        resolve("data.extra._target_", target, Allowlist(folders=(str(theirs),)))
    assert f"is not allowed; add trust={root} to the command line if it is yours" in str(error.value)


def test_a_module_that_lies_in_the_folder_but_is_not_what_python_finds_is_not_the_folders(theirs):
    trust = Allowlist(folders=(str(theirs),))
    assert not trust.covers("yaml")
    with pytest.raises(ConfigError, match=r"is not allowed \(another package of that name is found first\)"):
        resolve("data._target_", "yaml.data", trust)
    assert "conf" not in yaml.__file__


def test_nothing_is_imported_before_its_name_was_judged(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="is not allowed"):
        resolve("model._target_", "evil_module.Net", Allowlist())


def test_a_module_that_fails_to_import_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"^model._target_=broken_module.Net: importing broken_module failed: No module"
    ):
        resolve("model._target_", "broken_module.Net", Allowlist(("broken_module",)))


@pytest.mark.parametrize(
    ("group", "target", "today"),
    [
        ("schedule", "pipezoo.schedules.csv.csv", "pipezoo.schedules.from_csv.from_csv"),
        ("plan", "pipezoo.planner.wishes.Wishes", "pipezoo.planner.options.PlanOptions"),
        ("launch", "pipezoo.experiment.Processes", "pipezoo.launch.Processes"),
        ("launch", "pipezoo.experiment.Virtual", "pipezoo.launch.Virtual"),
        ("cost", "pipezoo.costs.measured.measured", "pipezoo.costs.profiled.measured"),
        ("checkpoint", "pipezoo.experiment.Checkpoints", "pipezoo.experiment.experiment.CheckpointOptions"),
        ("fault", "pipezoo.runtime.faults.Kill", "pipezoo.runtime.fault_injection.Kill"),
    ],
)
def test_a_name_of_before_is_answered_with_that_of_today(group, target, today):
    with pytest.raises(ConfigError) as error:
        resolve(f"{group}._target_", target, Allowlist())
    assert str(error.value) == f"{group}._target_={target}: is now called {today}"
    assert callable(resolve(f"{group}._target_", today, Allowlist()))


@pytest.mark.parametrize(
    "target",
    [
        "pipezoo.results.run_dir.write_text",
        "pipezoo.results.run_dir.claim",
        "pipezoo.results.run_dir.MetricsFile",
        "pipezoo.cli.main.command",
        "pipezoo.cli.hydra_app.NoteSweep",
        "pipezoo.experiment.allowlist.resolve",
        "pipezoo.schedules.from_csv.Path.write_text",
        "pipezoo.exports.torch.torch.load",
        "pipezoo.data.text.Path",
        "hydra.utils.instantiate",
        "hydra.utils.call",
        "omegaconf.OmegaConf.load",
    ],
)
@pytest.mark.parametrize("inner", [False, True])
def test_code_of_ours_that_writes_reads_or_imports_is_no_part_of_an_experiment(target, inner, tmp_path):
    victim = tmp_path / "victim"
    node = {"_target_": target, "path": str(victim), "text": "x"}
    part = Component("split", "mine", "pipezoo.splitters.annotated.split", {"split_spec": node}, given=("model", "num_stages", "example"))  # fmt: skip
    with pytest.raises(ConfigError, match="is not allowed there"):
        part() if inner else Component("data", "mine", target, {"path": str(victim), "text": "x"})()
    assert not victim.exists()


def test_every_name_of_before_leads_to_one_of_today():
    from pipezoo.results.renamed import COST_KEYS, KEYS, TARGETS, new_key
    from pipezoo.simulator.cost import STAGE_KEYS

    known = {name for _, name in EVERY}
    assert set(TARGETS.values()) <= known
    plan = yaml.safe_load((conf_dir() / "plan" / "search.yaml").read_text())
    assert {new.partition(".")[2] for new in KEYS.values()} <= set(plan)
    assert set(COST_KEYS.values()) <= {*STAGE_KEYS, "p2p", "p2p_intra_node"}
    assert new_key("cost.I_frees") == "cost.freed_by_input_grad"
    assert new_key("cost.hop.latency") == "cost.p2p.latency"
    assert new_key("plan.budget") == "plan.time_limit_s"
    assert new_key("cost.F") is None


def test_costs_that_were_written_under_the_keys_of_before_are_read(tmp_path):
    from pipezoo.costs.file import read

    entry = {"F": 1.0, "I": 1.0, "W": 1.0, "keeps": 8.0, "I_frees": 4.0, "sends": 2.0}
    cost = {"stages": [entry] * 2, "hop": {"latency": 0.5}, "hop_in_node": {"latency": 0.25}, "ranks_per_node": 2}
    (tmp_path / "result.json").write_text(json.dumps({"prediction": {"cost": cost}}))
    read_back = read(2, file=tmp_path)
    assert read_back.activation_bytes.tolist() == [8.0, 8.0]
    assert read_back.freed_by_input_grad.tolist() == [4.0, 4.0]
    assert read_back.output_bytes.tolist() == [2.0, 2.0]
    assert (read_back.p2p.latency, read_back.p2p_intra_node.latency) == (0.5, 0.25)
