"""A model's YAML file says which of its arguments is the number of stages; no name of an argument is special."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipezoo.config.compose import compose, load
from pipezoo.errors import ConfigError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.component import Component
from pipezoo.experiment.derive import derive, resolve
from pipezoo.experiment.experiment import Experiment


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(
        "defaults:\n  - override /split@_global_.split: modules\n"
        "_target_: my_net.Net\n_stages_: n_stages\nn_stages: ${stages_or:3}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def experiment(conf: Path, *words: str) -> Experiment:
    return load(
        *compose(["model=mine", "data.d_hid=8", "task=simulate", *words], conf), Allowlist(folders=(str(conf),))
    )


@pytest.mark.parametrize(
    ("words", "stages", "told"),
    [([], 3, 3), (["stages=5"], 5, 5), (["ranks=2", "schedule=zbv"], 4, 4), (["model.n_stages=6"], 6, 6)],
)
def test_the_argument_follows_stages_and_stages_follow_the_argument(conf, words, stages, told):
    made = experiment(conf, *words)
    assert made.model.arguments == {"n_stages": told}
    asked = derive(made)
    assert resolve(made, asked, asked.num_stages or made.model.stages_told).num_stages == stages


def test_a_contradiction_names_the_argument(conf):
    with pytest.raises(ConfigError) as error:
        derive(experiment(conf, "stages=4", "model.n_stages=6"))
    assert str(error.value) == (
        "model.n_stages=6: stages=4 asks for 4 stages (both count stages, not cuts); give one of them; valid: 4"
    )


def test_an_argument_that_the_model_is_not_given_is_refused(conf):
    with pytest.raises(ConfigError, match=r"^model._stages_=n_stage: unknown argument \(did you mean n_stages\?\)"):
        experiment(conf, "model._stages_=n_stage")


def test_a_schedule_is_made_once_for_the_same_numbers():
    schedule = Component("schedule", "zbv", "pipezoo.schedules.zbv.zbv", given=("num_ranks", "num_microbatches"))
    assert schedule.once(num_ranks=2, num_microbatches=4) is schedule.once(num_microbatches=4, num_ranks=2)
    assert schedule.once(num_ranks=2, num_microbatches=4) is not schedule.once(num_ranks=2, num_microbatches=5)
