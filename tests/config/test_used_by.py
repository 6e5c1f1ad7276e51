"""A key that was typed for nothing is said in one line, whatever its group."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pipezoo.config.compose import keys, load
from pipezoo.config.resolve import conf_dir
from pipezoo.config.used_by import USED_BY, notes
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.experiment import TASKS
from tests.support.configs import compose

GROUPS = sorted(folder.name for folder in conf_dir().iterdir() if folder.is_dir())


def noted(*words: str) -> list[str]:
    return notes(words, load(*compose(words), Allowlist()))


SEVERAL = (
    "experiment",
    "export",
    "fault",
    "tracker",
    "profile",
    "topology",
)  # none is chosen, or several


@pytest.mark.parametrize("name", sorted({*keys(), *GROUPS}))
def test_every_key_and_group_of_conf_has_an_entry(name):
    tasks, _ = USED_BY[name]
    assert tasks
    assert set(tasks) <= set(TASKS)


def test_no_entry_is_of_a_key_that_is_gone():
    assert set(USED_BY) <= {*keys(), *GROUPS, "hydra"}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("group", [group for group in GROUPS if group not in SEVERAL])
def test_a_key_of_a_group_is_noted_where_the_task_does_not_use_the_group(group, task):
    default = compose((f"task={task}", "ranks=2"))[1][group]  # the model of the default config chooses some itself
    node = OmegaConf.load(conf_dir() / group / f"{default}.yaml")
    key = next((str(key) for key in node if key not in ("_target_", "_stages_", "defaults")), "_target_")
    value = OmegaConf.to_container(node, resolve=False)[key]
    word = f"{group}.{key}={2 if '${' in str(value) else 'null' if value is None else value}"
    line = f"note      {word} has no effect on task={task}"
    assert noted(f"task={task}", "ranks=2", word) == ([] if task in USED_BY[group][0] else [line])


@pytest.mark.parametrize(
    ("words", "noted_words"),
    [
        ("task=simulate stages=2 optimizer.lr=99 steps=5000 dtype=float64", "optimizer.lr=99 steps=5000 dtype=float64"),
        ("task=simulate ranks=2 checkpoint.every=3 fault=kill", "checkpoint.every=3 fault=kill"),
        ("task=simulate ranks=2 launch.threads=7", "launch.threads=7"),
        ("task=simulate ranks=2 tracker=tensorboard eval.every=2", "tracker=tensorboard eval.every=2"),
        ("cost.F=99 plan.memory=1GB", "cost.F=99 plan.memory=1GB"),
        ("launch.emulate=true cost.F=0.01", ""),
        ("task=simulate ranks=2 cost=measured data.d_hid=8 launch.threads=1 steps=3", "steps=3"),
        ("task=plan ranks=2 optimizer=adamw seed=3 verify=false", "verify=false"),
        ("task=verify verify=false", "verify=false"),
        ("task=simulate ranks=2 mesh.dp=2", "mesh.dp=2"),
        ("task=simulate ranks=2 mesh.dp=2 topology=h100", ""),
        ("task=simulate ranks=2 cost=table cost.p2p.latency=1 topology=h100 cost.overlap=false", "cost.p2p.latency=1"),
        ("topology=h100", "topology=h100"),
        ("task=plan plan=devices ranks=4 cost=table export=torch topology=a100", "ranks=4 cost=table export=torch"),
    ],
)  # fmt: skip
def test_what_was_typed_for_nothing_is_noted_and_nothing_else(words, noted_words):
    task = next((word for word in words.split() if word.startswith("task=")), "task=train")
    assert noted(*words.split()) == [f"note      {word} has no effect on {task}" for word in noted_words.split()]


def test_the_note_stands_among_the_start_up_lines(cli, tmp_path: Path):
    ended = cli("simulate", "ranks=2", "optimizer.lr=99")
    assert ended.code == 0
    assert ended.out.splitlines()[1] == "note      optimizer.lr=99 has no effect on task=simulate"
