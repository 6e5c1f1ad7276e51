"""What is proposed in place of a plan's winner can be simulated from the plan's folder."""

from __future__ import annotations

import shlex

import pytest

from pipezoo.config.compose import load
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.explain.changes import of_alternative
from pipezoo.explain.of_run import explained
from pipezoo.results.run import read_run
from pipezoo.tasks import plan, simulate
from tests.support.configs import compose

DEVICES = ["plan=devices", "plan.devices=64", "plan.global_batch=64", "plan.tp=[8]", "plan.rows=[1]"]


@pytest.mark.parametrize("words", [["ranks=4", "plan.search=false"], DEVICES], ids=["search", "devices"])
def test_its_alternatives_are_simulated_from_its_folder(words, tmp_path):
    folders = [tmp_path / name for name in ("plan", "other")]
    for folder in folders:
        folder.mkdir()
    plan.run(load(*compose(["task=plan", *words]), Allowlist()), folders[0], lambda line: None)
    run = read_run(folders[0])
    other = next(one for one in explained(run).found if one.choice)
    command = shlex.split(of_alternative(run, other))[3:]
    assert command[:3] == ["task=simulate", "cost=file", f"cost.file={folders[0]}"]
    made = simulate.run(load(*compose(command), Allowlist()), folders[1], lambda line: None)
    assert made["step_seconds"]["median"] == pytest.approx(other.step)
